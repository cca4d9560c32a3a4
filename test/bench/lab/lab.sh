# SPDX-License-Identifier: PostgreSQL
#
# What the scenarios of the load lab share: legs (ways to the server: directly, through a peer, through the pool),
# loads, records, plots and reports.  To be sourced; brings the functions of measuring.sh and throwaway_server.sh with it.
#
# A scenario:
#
#   lab_open herd "leg,round,clients,rate"     # the server's directory, the extension, the load generator, $csv
#   lab_legs                                   # sets the array "legs": those wanted (LAB_LEGS) that this machine has
#   lab_server "sluice.max_clients = 20000"    # (re)starts the server; role and database "bench" are there
#   lab_tables 10                              # pgbench's tables
#   for leg in $(rotated "$round"); do
#     start_leg "$leg" 500                     # 500: how many clients it will have at most
#     load "$leg" --clients 500 --seconds 3 --query "select 1"
#     record "$leg" "$round" 500 "$(load_value latency p99_us)"
#     stop_leg "$leg"
#   done
#   plot herd.svg <<<"plot '$csv' ..."
#   lab_report herd_report.pl "$csv"
#
# Files of a scenario are build/lab/SCENARIO.csv, .md and .svg; progress goes to standard error.  However it ends, its
# server and its peers are stopped and their directory is removed.  A scenario whose server has crashed has failed,
# whatever it has measured, unless it says crashes_expected=1 because it crashes the server itself.
#
#   LAB_ROUNDS=3  LAB_SECONDS=5        rounds, seconds per leg
#   LAB_QUICK=1                        one round of one second, and fewer clients and sizes where a scenario says so
#   LAB_LEGS="direct pgbouncer pgpool odyssey sluice"
#   LAB_POOL_SIZE                      server connections of each pool (cores * 2 + 1)
#   LAB_PGBOUNCER=, LAB_ODYSSEY=/path  another PgBouncer than the package's; an Odyssey that is not in the search path

source "$(dirname "${BASH_SOURCE[0]}")/../measuring.sh"

lab_dir=$bench_dir/lab
results_dir=$root/build/lab
quick=${LAB_QUICK:-0}
if [ "$quick" = 1 ]; then
  rounds=${LAB_ROUNDS:-1}
  seconds=${LAB_SECONDS:-1}
else
  rounds=${LAB_ROUNDS:-3}
  seconds=${LAB_SECONDS:-5}
fi
pool_size=${LAB_POOL_SIZE:-$(($(nproc) * 2 + 1))}

scenario=
legs=()
# Legs that were wanted and are left out: a line "LEG: reason" each.
legs_left_out=()
load_generator=
# Where the server's certificate lies once lab_certificate has made one; loads are then encrypted if lab_tls is 1.
lab_tls=0
# How long a load may last beyond its own seconds before it is killed.
load_grace=90
# 1: this scenario crashes its server.
crashes_expected=0
# The one curve of all legs' key exchanges: which one a server offers by its default depends on its version.
tls_curve=prime256v1

for peer_file in "$lab_dir"/peers/*.sh; do
  [ ! -e "$peer_file" ] || source "$peer_file"
done

# ---- opening and closing

# lab_open SCENARIO COLUMNS
lab_open() {
  scenario=$1
  csv=$results_dir/$scenario.csv
  "$root/test/tools/install_packages.sh" gnuplot-nox >&2 || say "gnuplot could not be installed: there will be no plots"
  mkdir -p "$results_dir"
  remove_old_results
  echo "$2" >"$csv"
  sandbox_open
  trap lab_close EXIT
  install_extension >&2
  server_init
  build_load_generator >&2
  load_generator=$root/build/test/bench/load_generator
  : >"$workdir/settings_given"
}

# Report and plots of an earlier run, so that nobody takes them for this one's.  Not SCENARIO_in_machine*, which is made
# by another script.
remove_old_results() {
  local file
  for file in "$results_dir/$scenario".md "$results_dir/$scenario".svg "$results_dir/$scenario"_*.svg; do
    [[ $file == */"$scenario"_in_machine* ]] || rm -f "$file"
  done
}

# lab_crashes: what the server's log says of processes that have crashed; fails if there is nothing, or if the scenario
# expects it.  A scenario that empties the log calls keep_crashes before.
lab_crashes() {
  [ "$crashes_expected" != 1 ] || return 1
  { cat "$workdir/crashes" "$workdir/server.log" 2>/dev/null || true; } |
    awk '/was terminated by signal|PANIC: |TRAP: / && !seen[$0]++ && ++found <= 5; END { exit !found }'
}

keep_crashes() {
  local found
  if found=$(lab_crashes); then printf '%s\n' "$found" >"$workdir/crashes"; fi
}

started_legs=()
lab_close() {
  local status=$? leg found
  set +e
  trap '' INT TERM
  for leg in "${started_legs[@]}"; do "${leg}_stop" >/dev/null 2>&1; done
  if [ -n "$workdir" ] && found=$(lab_crashes); then
    say ""
    say "FAILED: the server has crashed in scenario $scenario:"
    say "$found"
    [ "$status" != 0 ] || status=1
  fi
  (exit "$status")
  sandbox_close
}

# ---- the server

lab_created=
# lab_server SETTING...: "name = value" each
lab_server() {
  server_stop
  # Lines of a later setting win, as in any configuration file.
  { server_settings
    extension_settings
    if [ "$lab_tls" = 1 ]; then
      printf "ssl = on\nssl_ecdh_curve = '%s'\nssl_cert_file = '%s'\nssl_key_file = '%s'\n" "$tls_curve" \
        "$tls_certificate" "$tls_key"
    fi
    [ $# = 0 ] || printf '%s\n' "$@"
  } | server_start
  [ $# = 0 ] || printf '%s\n' "$@" >>"$workdir/settings_given"
  if [ -z "$lab_created" ]; then
    query "create role bench login"
    query "create database bench owner bench"
    query "create extension pg_sluice" bench
    lab_created=yes
  fi
  wait_for_pool bench bench
}

# lab_tables SCALE: pgbench's tables, filled; $lab_scale for the scripts that need to know.
lab_tables() {
  lab_scale=$1
  "$bindir/pgbench" -i -q -s "$1" -h "$workdir" -p "$port" -U bench bench >"$workdir/pgbench.txt" 2>&1 ||
    fail "pgbench could not create its tables: $(tail -n 3 "$workdir/pgbench.txt")"
}

# lab_certificate rsa|ecdsa: sets tls_certificate and tls_key, which serve all legs alike.
lab_certificate() {
  local kind=(rsa:2048)
  if [ "$1" = ecdsa ]; then kind=(ec -pkeyopt ec_paramgen_curve:prime256v1); fi
  tls_certificate=$workdir/$1.crt
  tls_key=$workdir/$1.key
  as_server_user openssl req -x509 -newkey "${kind[@]}" -nodes -days 2 -subj /CN=127.0.0.1 \
    -keyout "$tls_key" -out "$tls_certificate" >"$workdir/openssl.txt" 2>&1 ||
    fail "openssl could not make a certificate: $(tail -n 1 "$workdir/openssl.txt")"
  as_server_user chmod 600 "$tls_key"
}

# settle: until the server has no more clients than one pool's connections, so that hundreds of exits do not burden the
# next leg.
settle() {
  local clients
  for _ in $(seq 300); do
    clients=$(query "select count(*) from pg_stat_activity
                     where datname = 'bench' and backend_type = 'client backend'")
    [ "$clients" -gt "$pool_size" ] || return 0
    sleep 0.1
  done
  fail "the server still has $clients clients of a leg that has ended"
}

# ---- legs
#
# A leg other than direct and sluice is a peer, and has a file in peers/ with functions named after it:
#   X_find            sets what the others need; fails and says on standard output why if the peer is not here
#   X_start CLIENTS   fails with a reason in leg_reason if it does not start
#   X_stop, X_pids
#   X_configuration   what it was told, as text
#   X_can WHAT        simple, prepared, tls, unix; fails and says on standard output why not
#   X_version
# and a variable X_port, set by X_start.

leg_name() {
  case $1 in
    direct) echo direct ;;
    pgbouncer) echo PgBouncer ;;
    pgpool) echo pgpool-II ;;
    odyssey) echo Odyssey ;;
    sluice) echo pg_sluice ;;
    *) echo "$1" ;;
  esac
}

is_peer() { [ "$1" != direct ] && [ "$1" != sluice ]; }

# The legs wanted that are available here, in the array "legs"; says which are left out and why.  Also what a scenario
# names as its own choice, if LAB_LEGS does not choose: lab_legs [LEG...]
lab_legs() {
  local leg reason wanted="direct pgbouncer pgpool odyssey sluice"
  if [ $# -gt 0 ]; then wanted=$*; fi
  legs=()
  legs_left_out=()
  for leg in ${LAB_LEGS:-$wanted}; do
    if ! is_peer "$leg"; then
      legs+=("$leg")
    elif ! declare -F "${leg}_find" >/dev/null; then
      fail "there is no such leg: $leg"
    # Not in a subshell: it sets variables.
    elif "${leg}_find" >"$(lab_scratch)"; then
      legs+=("$leg")
    else
      reason=$(cat "$(lab_scratch)")
      legs_left_out+=("$(leg_name "$leg"): $reason")
      say "  without $(leg_name "$leg"): $reason"
    fi
  done
  [ ${#legs[@]} -gt 0 ] || fail "no leg is left"
}

lab_scratch() { echo "${workdir:?lab_open comes first}/scratch.txt"; }

has_leg() { [[ " ${legs[*]} " == *" $1 "* ]]; }

# leg_can LEG WHAT: simple, prepared, tls, unix; if not, the reason on standard output.
leg_can() {
  ! is_peer "$1" || "$1_can" "$2"
}

# start_leg LEG [CLIENTS]: no-op for direct and sluice.  CLIENTS, as many as there will be at a time, is for peers that
# have to be told.
start_leg() { try_start_leg "$@" || fail "$leg_reason"; }

# The same, but what does not start is for the caller to report; the reason is in leg_reason.
try_start_leg() {
  is_peer "$1" || return 0
  started_legs+=("$1")
  leg_reason=
  "$1_start" "${2:-100}"
}

stop_leg() {
  local leg remaining=()
  is_peer "$1" || return 0
  "$1_stop"
  for leg in "${started_legs[@]}"; do [ "$leg" = "$1" ] || remaining+=("$leg"); done
  started_legs=("${remaining[@]}")
}

leg_port() {
  local variable=$1_port
  case $1 in
    direct) echo "$port" ;;
    sluice) echo "$pool_port" ;;
    *) echo "${!variable}" ;;
  esac
}

# The processes of the pooler itself, none for direct: what it costs to have one.  The pooled backends are not among
# them, as the server's backends behind a peer are not.
leg_pids() {
  case $1 in
    direct) ;;
    sluice)
      query "select pid from pg_stat_activity
             where backend_type like 'pg_sluice %'
                   and backend_type not in ('pg_sluice backend', 'pg_sluice calibrator')"
      ;;
    *) "$1_pids" ;;
  esac
}

leg_configuration() {
  case $1 in
    direct) echo "the server's own port" ;;
    sluice)
      if [ -s "$workdir/settings_given" ]; then
        echo "defaults, but: $(sort -u "$workdir/settings_given" | paste -s -d ';' | sed 's/;/; /g')"
      else
        echo "defaults"
      fi
      ;;
    *) "$1_configuration" ;;
  esac
}

# The legs in the order of this round: another one is first each time.
rotated() {
  local i count=${#legs[@]}
  for i in "${!legs[@]}"; do echo "${legs[$(((i + $1 - 1) % count))]}"; done
}

# What peers/*.sh share: wait_for_peer NAME PID PORT, until it listens.  Its logs are $workdir/NAME.log and NAME.out, in
# lower case.
wait_for_peer() {
  for _ in $(seq 200); do
    kill -0 "$2" 2>/dev/null || { leg_reason="$1 has ended: $(peer_log "$1")"; return 1; }
    if (exec 3<>"/dev/tcp/127.0.0.1/$3") 2>/dev/null; then return 0; fi
    sleep 0.05
  done
  leg_reason="$1 does not listen on port $3: $(peer_log "$1")"
  return 1
}

peer_log() { { tail -q -n 3 "$workdir/${1,,}".{out,log} 2>/dev/null || true; } | paste -s -d ' '; }

# wait_for_end NAME PID SIGNAL
wait_for_end() {
  kill "-$3" "$2" 2>/dev/null || true
  for _ in $(seq 400); do
    kill -0 "$2" 2>/dev/null || return 0
    sleep 0.05
  done
  kill -KILL "$2" 2>/dev/null || true
  say "  $1 did not stop and was killed"
}

# ---- loads

# Sets load_reason and returns the generator's status: 0, 1 if the load could not be run, 2 if a request failed, 124 if
# it took too long.  Reads, if set: load_host (127.0.0.1; "unix" for the socket), load_name ("load": the files are
# $workdir/NAME.csv, NAME.csv.summary.csv and NAME.txt), load_conninfo (more of it).
try_load() {
  local leg=$1 host=${load_host:-127.0.0.1} name=${load_name:-load} status=0 limit=$load_grace argument before=
  shift
  if [ "$host" = unix ]; then host=$workdir; fi
  for argument in "$@"; do
    case $before in
      --seconds | --warmup | --drain)
        [[ ! $argument =~ ^[0-9.]+$ ]] ||
          limit=$(awk -v a="$limit" -v b="$argument" 'BEGIN { printf "%d", a + b + 1 }') ;;
    esac
    before=$argument
  done
  rm -f "$workdir/$name".csv*
  # In the foreground: in a process group of its own it would not hear a Ctrl-C, and this script waits until it ends.
  timeout --foreground --kill-after=10 "$limit" "$load_generator" --csv "$workdir/$name.csv" "$@" \
    "host=$host port=$(leg_port "$leg") dbname=bench user=bench ${load_conninfo:-$(default_conninfo)}" \
    >"$workdir/$name.txt" 2>"$workdir/$name.err" || status=$?
  load_reason=
  case $status in
    0) ;;
    124 | 137) load_reason="not finished after $limit s" ;;
    *) load_reason=$({ grep -E '^error' "$workdir/$name.txt"; grep . "$workdir/$name.err" | tail -n 2; } |
         head -n 4 | paste -s -d ' ') ;;
  esac
  return "$status"
}

default_conninfo() { if [ "$lab_tls" = 1 ]; then echo sslmode=require; else echo sslmode=disable; fi; }

# load LEG options...: as try_load, but a load that fails ends the scenario.
load() {
  local status=0
  try_load "$@" || status=$?
  [ "$status" = 0 ] || fail "load through $(leg_name "$1") ended with status $status: $load_reason (${*:2})"
}

# load_value MEASURE COLUMN: of the last load, for example latency p99_us; empty if there is none.  MEASURE "summary":
# COLUMN is a name of the summary, for example throughput_per_s.
load_value() {
  local file=$workdir/${load_name:-load}.csv
  if [ "$1" = summary ]; then
    if [ -s "$file.summary.csv" ]; then
      awk -F, -v name="$2" '$1 == name { print $2 }' "$file.summary.csv"
    else
      load_text_value "$2"
    fi
  else
    awk -F, -v measure="$1" -v column="$2" '
      NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) at = i; next }
      $1 == measure && at { print $at }' "$file"
  fi
}

# The summary of a generator that writes none.
load_text_value() {
  local words=$1
  if [ "$words" = throughput_per_s ]; then words=throughput; fi
  sed -n "s/^$words: \([0-9.]*\).*/\1/p" "$workdir/${load_name:-load}.txt"
}

# Processor time of processes with all their threads, in microseconds; those that have ended do not count.
threads_cpu_time_us() {
  local pid files=()
  for pid in "$@"; do files+=("/proc/$pid"/task/[0-9]*/schedstat); done
  [ ${#files[@]} -gt 0 ] || { echo 0; return; }
  { cat "${files[@]}" 2>/dev/null || true; } | awk '{ total += $1 } END { printf "%.0f\n", total / 1000 }'
}

# Time in which a processor of this machine did anything, in microseconds, since it was started: all but idling, waiting
# for disks, and what a hypervisor has taken.  (watch_processors.pl counts the same.)
machine_busy_us() {
  awk -v tick=$((1000000 / $(getconf CLK_TCK))) '
    /^cpu / { printf "%.0f\n", ($2 + $3 + $4 + $7 + $8) * tick }' /proc/stat
}

# Server connections.  Peers, and clients of the direct port, are client backends of the role "bench", and nothing at the
# server tells whose.  So note_other_backends, before a leg is started or used, notes those that belong to another: to a
# peer that is kept running, or to clients that are just leaving.
other_backends=
declare -A kept_backends=()

# client_backends [PIDS]: the client backends but these.  Lists have commas.
client_backends() {
  query "select string_agg(pid::text, ',') from pg_stat_activity
         where datname = 'bench' and usename = 'bench' and backend_type = 'client backend'
               and pid <> all('{${1:-}}'::int[])"
}

# note_other_backends LEG
note_other_backends() { other_backends=$(client_backends "${kept_backends[$1]:-}"); }

# sample_connections LEG: writes the number of its server connections into $workdir/connections, twice a second, until
# there is a file $workdir/sampled.
sample_connections() {
  local kind="backend_type = 'client backend' and pid <> all('{$other_backends}'::int[])" every=0.5 sql
  if [ "$1" = sluice ]; then kind="backend_type = 'pg_sluice backend'"; fi
  if [ "$quick" = 1 ]; then every=0.1; fi
  sql="select count(*) from pg_stat_activity where datname = 'bench' and usename = 'bench' and $kind;"
  while [ ! -e "$workdir/sampled" ]; do
    echo "$sql"
    sleep "$every"
  done | "$bindir/psql" -X -q -A -t -h "$workdir" -p "$port" -U postgres -d postgres >"$workdir/connections" 2>/dev/null
}

# watched_load LEG SECONDS options...: try_load with --seconds SECONDS, while the machine is watched.  Sets
# machine_us_per_s and pooler_us_per_s, the processor time that all, and that the pooler's own processes, have used in
# each second of the measured time.  The watch looks several times a second; connecting and warming up, which come
# before, are left out by the clock: the generator tells when it has ended.
#
# And sets server_connections, the most that the leg has had at a time: sampled, warming up included; of pg_sluice also
# what the pool itself has counted, which knows what lies between two samples.
watched_load() {
  local leg=$1 for_seconds=$2 pids status=0 watch sampler others=("${extra_processes[@]}")
  shift 2
  if [ "$leg" = sluice ]; then query "select sluice.reset_statistics()" bench >/dev/null; fi
  rm -f "$workdir/sampled"
  sample_connections "$leg" &
  sampler=$!
  pids=$(leg_pids "$leg")
  rm -f "$workdir/left_at"
  # shellcheck disable=SC2086  # numbers
  perl "$lab_dir/watch_processors.pl" $pids >"$workdir/watch.csv" &
  watch=$!
  extra_processes+=("$watch" "$sampler")
  try_load "$leg" --seconds "$for_seconds" --before-leaving "date +%s.%N >'$workdir/left_at'" "$@" || status=$?
  kill "$watch" 2>/dev/null || true
  wait "$watch" 2>/dev/null || true
  : >"$workdir/sampled"
  wait "$sampler" 2>/dev/null || true
  extra_processes=("${others[@]}")
  server_connections=$({ cat "$workdir/connections"
    if [ "$leg" = sluice ]; then
      query "select peak_backends from sluice.pools where database = 'bench' and role = 'bench'" bench || true
    fi; } | awk '/^[0-9]+$/ { if (!seen++ || $1 > most) most = $1 } END { if (seen) print most }')
  if is_peer "$leg"; then kept_backends[$leg]=$(client_backends "$other_backends" || true); fi
  machine_us_per_s=
  pooler_us_per_s=
  if [ -s "$workdir/left_at" ]; then
    read -r machine_us_per_s pooler_us_per_s <<<"$(awk -F, -v end="$(cat "$workdir/left_at")" -v for_s="$for_seconds" '
      $1 > end { next }
      $1 >= end - for_s && !seen { seen = 1; at = $1; all = $2; own = $3 }
      { last = $1; a = $2; o = $3 }
      END { if (seen && last > at) printf "%.0f %.0f\n", (a - all) / (last - at), (o - own) / (last - at) }' \
      "$workdir/watch.csv")" || true
  fi
  return "$status"
}

# ---- plots and reports

# plot FILE.svg <<<"gnuplot commands": into the directory of results.  CSV files are read as they are; lines of legs are
# drawn with color_LEG.  Without gnuplot there is no plot, and the scenario goes on.
plot() {
  if ! command -v gnuplot >/dev/null; then
    say "  no gnuplot: without $1"
    return 0
  fi
  { cat <<'END_OF_STYLE'
set terminal svg size 900,560 font 'Helvetica,13' background '#ffffff'
set datafile separator ','
set grid linecolor '#dddddd'
set border linecolor '#555555'
set key outside right top
color_direct = '#7f7f7f'
color_pgbouncer = '#1f77b4'
color_pgpool = '#8c564b'
color_odyssey = '#ff7f0e'
color_sluice = '#2ca02c'
END_OF_STYLE
    echo "set output '$results_dir/$1'"
    cat
  } >"$workdir/plot.gnuplot"
  gnuplot "$workdir/plot.gnuplot" >"$workdir/gnuplot.txt" 2>&1 ||
    fail "gnuplot could not draw $1: $(tail -n 3 "$workdir/gnuplot.txt")"
  say "  plot: $results_dir/$1"
}

# The first lines of every report: whoever quotes numbers has to say of when and of what they are.
lab_describe() {
  local leg line title=$scenario variable given=
  if [ "$quick" = 1 ]; then title+=" (a quick run: it shows that the scenario works, its numbers mean little)"; fi
  for variable in $(compgen -e LAB_ || true); do given+="$variable=$(printf %q "${!variable}") "; done
  echo "## $title"
  echo
  echo "$(date -u '+%Y-%m-%d %H:%M UTC'), pg_sluice $(lab_version): \`${given}test/bench/lab/$scenario.sh\`"
  echo
  describe_hardware
  echo "Versions: $("$bindir/postgres" --version)$(for leg in "${legs[@]}"; do
    ! is_peer "$leg" || printf ', %s' "$("${leg}_version")"; done)."
  echo "Server: $(server_settings | paste -s -d ';' | sed 's/;/; /g'); fsync = off; synchronous_commit = off;" \
    "$([ "$lab_tls" != 1 ] || echo "ssl_ecdh_curve = $tls_curve; ")pg_sluice is loaded for all legs."
  echo "$rounds rounds, $seconds s per leg; pools of $pool_size server connections where it does not say otherwise."
  echo
  if [ ${#legs[@]} = 0 ]; then echo "- pg_sluice: $(leg_configuration sluice)"; fi
  for leg in "${legs[@]}"; do echo "- $(leg_name "$leg"): $(leg_configuration "$leg" | paste -s -d ' ')"; done
  for line in "${legs_left_out[@]}"; do echo "- without $line"; done
  echo
}

# The extension's version and, where version control is at hand, the commit it was built from.
lab_version() {
  local version commit
  version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$root/pg_sluice.control")
  if [ -e "$root/.git" ] && commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null); then
    version+=", commit $commit"
    [ -z "$(git --no-optional-locks -C "$root" status --porcelain --untracked-files=no 2>/dev/null)" ] ||
      version+=" with changes"
  fi
  echo "$version"
}

# lab_report SCRIPT ARGUMENT...: SCRIPT is a file of this folder, in Perl.  What is wrong with a report is in the report,
# too, for it may be read without this run's messages.
lab_report() {
  local script=$1 found status=0
  shift
  { lab_describe
    perl "$lab_dir/$script" "$@" || status=$?
    if [ "$status" != 0 ]; then
      printf '\n**FAILED: %s ended with status %s.**\n' "$script" "$status"
      fail "$script ended with status $status"
    fi
    if found=$(lab_crashes); then
      echo
      echo "**FAILED: the server has crashed while this was measured:**"
      echo
      sed 's/^/    /' <<<"$found"
    fi
  } | tee "$results_dir/$scenario.md"
}
