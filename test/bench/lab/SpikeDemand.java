// SPDX-License-Identifier: PostgreSQL
//
// The spike for pools of the Java world: as many threads as there are clients, quiet, and then all of them take a
// connection from the pool, execute the query and give the connection back.
//
//   java SpikeDemand POOL --port N --database D --user U --clients 50 --min 5 --max 50 --query SQL --requests FILE
//                    [--warm-query SQL --rehearsal-seconds 2] [--before COMMAND] [--after COMMAND] [--watch-ms 1000]
//
// POOL is hikaricp, dbcp2, tomcat or c3p0; all speak real JDBC to a server on the loopback address.  The files, the
// columns of the answers and the order of things are those of spike_clients.cpp, so that the same report reads both.
//
// A virtual machine that has just been started would be measured compiling.  So there is a rehearsal before: all
// threads execute the query for some seconds on a pool of the same kind that cannot grow, and that is closed then.
// The pool that is measured is a new one, and gets the same few queries before the spike as the other systems do.
//
// Pools are told how few and how many connections to have, that as many as that may stay idle, and nothing else: all
// else is the pool's default.  What a pool says of itself in the end (total, active, idle) is printed as "total=N
// active=N idle=N".
//
// Exit status 2: a request has failed.

import com.mchange.v2.c3p0.ComboPooledDataSource;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import com.zaxxer.hikari.HikariPoolMXBean;
import java.io.PrintWriter;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Instant;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;

public final class SpikeDemand {
  private static final String DRIVER = "org.postgresql.Driver";
  private static final int STAGGER_MS = 10;
  private static final int WARM_ROUNDS = 3;
  // Some pools take a connection back later than its user gives it.
  private static final int ROUND_PAUSE_MS = 200;

  private interface Pool {
    DataSource source();

    String state() throws Exception;

    void close() throws Exception;
  }

  private record Settings(String url, String user, int min, int max) {}

  private static String state(int total, int active, int idle) {
    return "total=" + total + " active=" + active + " idle=" + idle;
  }

  // ---- the pools

  private static Pool open(String name, Settings settings) throws Exception {
    switch (name) {
      case "hikaricp":
        return hikaricp(settings);
      case "dbcp2":
        return dbcp2(settings);
      case "tomcat":
        return tomcat(settings);
      case "c3p0":
        return c3p0(settings);
      default:
        throw new IllegalArgumentException("not a pool: " + name);
    }
  }

  private static Pool hikaricp(Settings settings) {
    HikariConfig config = new HikariConfig();
    config.setDriverClassName(DRIVER);
    config.setJdbcUrl(settings.url());
    config.setUsername(settings.user());
    config.setMinimumIdle(settings.min());
    config.setMaximumPoolSize(settings.max());
    HikariDataSource source = new HikariDataSource(config);
    HikariPoolMXBean pool = source.getHikariPoolMXBean();
    return pool(source, () -> state(pool.getTotalConnections(), pool.getActiveConnections(), pool.getIdleConnections()),
        source::close);
  }

  private static Pool dbcp2(Settings settings) throws SQLException {
    BasicDataSource source = new BasicDataSource();
    source.setDriverClassName(DRIVER);
    source.setUrl(settings.url());
    source.setUsername(settings.user());
    source.setInitialSize(settings.min());
    source.setMinIdle(settings.min());
    source.setMaxTotal(settings.max());
    source.setMaxIdle(settings.max());
    source.start();
    source.getConnection().close();
    return pool(source,
        () -> state(source.getNumActive() + source.getNumIdle(), source.getNumActive(), source.getNumIdle()),
        source::close);
  }

  private static Pool tomcat(Settings settings) throws SQLException {
    org.apache.tomcat.jdbc.pool.DataSource source = new org.apache.tomcat.jdbc.pool.DataSource();
    source.setDriverClassName(DRIVER);
    source.setUrl(settings.url());
    source.setUsername(settings.user());
    source.setInitialSize(settings.min());
    source.setMinIdle(settings.min());
    source.setMaxActive(settings.max());
    source.setMaxIdle(settings.max());
    source.createPool();
    return pool(source, () -> state(source.getSize(), source.getActive(), source.getIdle()), source::close);
  }

  private static Pool c3p0(Settings settings) throws Exception {
    ComboPooledDataSource source = new ComboPooledDataSource();
    source.setDriverClass(DRIVER);
    source.setJdbcUrl(settings.url());
    source.setUser(settings.user());
    source.setInitialPoolSize(settings.min());
    source.setMinPoolSize(settings.min());
    source.setMaxPoolSize(settings.max());
    source.getConnection().close();
    return pool(source, () -> state(source.getNumConnectionsDefaultUser(), source.getNumBusyConnectionsDefaultUser(),
        source.getNumIdleConnectionsDefaultUser()), source::close);
  }

  private interface State {
    String read() throws Exception;
  }

  private interface Close {
    void run() throws Exception;
  }

  private static Pool pool(DataSource source, State state, Close close) {
    return new Pool() {
      @Override
      public DataSource source() {
        return source;
      }

      @Override
      public String state() throws Exception {
        return state.read();
      }

      @Override
      public void close() throws Exception {
        close.run();
      }
    };
  }

  // ---- the clients

  // One request, and what is known of it.
  private static final class Request {
    final DataSource source;
    final String query;
    long sentUs;
    long answeredUs;
    String began = "";
    String ended = "";
    String backend = "";
    String error = "";

    Request(DataSource source, String query) {
      this.source = source;
      this.query = query;
    }

    void run() {
      sentUs = nowUs();
      try (Connection connection = source.getConnection();
          Statement statement = connection.createStatement();
          ResultSet result = statement.executeQuery(query)) {
        ResultSetMetaData columns = result.getMetaData();
        while (result.next()) {
          for (int i = 1; i <= columns.getColumnCount(); i++) take(columns.getColumnName(i), result.getString(i));
        }
        answeredUs = nowUs();
      } catch (SQLException problem) {
        answeredUs = nowUs();
        error = problem.getSQLState() == null ? "08000" : problem.getSQLState();
        System.err.println("SpikeDemand: " + problem);
      }
    }

    private void take(String column, String value) {
      if (column.equals("began")) began = value;
      if (column.equals("ended")) ended = value;
      if (column.equals("backend")) backend = value;
    }
  }

  // The server's clock_timestamp() reads the same clock.
  private static long nowUs() {
    Instant now = Instant.now();
    return now.getEpochSecond() * 1_000_000 + now.getNano() / 1000;
  }

  private static void rehearse(Pool pool, String query, int threads, double seconds) throws Exception {
    Thread[] workers = new Thread[threads];
    long end = System.nanoTime() + (long) (seconds * 1e9);
    for (int i = 0; i < threads; i++) {
      workers[i] = new Thread(() -> {
        while (System.nanoTime() < end) new Request(pool.source(), query).run();
      });
      workers[i].start();
    }
    for (Thread worker : workers) worker.join();
    pool.close();
  }

  // One query on each connection, staggered so that none waits for another.
  private static void warmUp(DataSource source, String query, int threads) throws Exception {
    for (int round = 0; round < WARM_ROUNDS; round++) {
      Thread[] workers = new Thread[threads];
      for (int i = 0; i < threads; i++) {
        workers[i] = new Thread(() -> new Request(source, query).run());
        workers[i].start();
        Thread.sleep(STAGGER_MS);
      }
      for (Thread worker : workers) worker.join();
      Thread.sleep(ROUND_PAUSE_MS);
    }
  }

  private static void runCommand(String command) throws Exception {
    if (command == null) return;
    int status = new ProcessBuilder("sh", "-c", command).inheritIO().start().waitFor();
    if (status != 0) throw new IllegalStateException("the command failed: " + command);
  }

  private static void write(String file, Request[] requests) throws Exception {
    try (PrintWriter out = new PrintWriter(file, "UTF-8")) {
      out.println("client,sent_us,began,ended,answered_us,backend,error");
      for (int i = 0; i < requests.length; i++) {
        Request r = requests[i];
        out.println((i + 1) + "," + r.sentUs + "," + r.began + "," + r.ended + "," + r.answeredUs + "," + r.backend
            + "," + r.error);
      }
    }
  }

  private static Map<String, String> options(String[] arguments) {
    Map<String, String> options = new HashMap<>();
    for (int i = 1; i + 1 < arguments.length; i += 2) options.put(arguments[i].substring(2), arguments[i + 1]);
    return options;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> options = options(arguments);
    int clients = Integer.parseInt(options.getOrDefault("clients", "50"));
    int min = Integer.parseInt(options.getOrDefault("min", "5"));
    String url = "jdbc:postgresql://127.0.0.1:" + options.get("port") + "/" + options.get("database")
        + "?sslmode=disable&gssEncMode=disable";
    int max = Integer.parseInt(options.getOrDefault("max", "50"));
    String query = options.get("query");

    double rehearsalSeconds = Double.parseDouble(options.getOrDefault("rehearsal-seconds", "2"));
    rehearse(open(arguments[0], new Settings(url, options.get("user"), min, min)), query, clients, rehearsalSeconds);
    Pool pool = open(arguments[0], new Settings(url, options.get("user"), min, max));
    runCommand(options.get("before"));
    warmUp(pool.source(), options.getOrDefault("warm-query", query), min);
    CountDownLatch ready = new CountDownLatch(clients);
    CountDownLatch spike = new CountDownLatch(1);
    CountDownLatch served = new CountDownLatch(clients);
    Request[] requests = new Request[clients];
    for (int i = 0; i < clients; i++) {
      Request request = new Request(pool.source(), query);
      requests[i] = request;
      Thread thread = new Thread(() -> {
        ready.countDown();
        try {
          spike.await();
        } catch (InterruptedException ignored) {
          return;
        }
        request.run();
        served.countDown();
      });
      thread.setDaemon(true);
      thread.start();
    }
    ready.await();
    runCommand(options.get("before"));
    long began = System.nanoTime();
    spike.countDown();
    served.await();
    write(options.get("requests"), requests);
    long left = Long.parseLong(options.getOrDefault("watch-ms", "1000")) - (System.nanoTime() - began) / 1_000_000;
    if (left > 0) Thread.sleep(left);
    runCommand(options.get("after"));
    System.out.println(pool.state());
    System.out.flush();
    // Connections end with the process; a pool's own closing is not what is measured.
    for (Request request : requests) {
      if (!request.error.isEmpty()) Runtime.getRuntime().halt(2);
    }
    Runtime.getRuntime().halt(0);
  }
}
