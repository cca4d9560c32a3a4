// SPDX-License-Identifier: PostgreSQL
//
// Reads pg_authid and pg_database without a database; why so is told in the
// header.
//
// Memberships do come from the server's caches (pg_auth_members holds nothing
// that could be out of line).  acl.c remembers the last role it has expanded and
// forgets it through callbacks that are registered only in a process attached to
// a database; without them a REVOKE would never be seen here.  So they are
// registered on first use.
//
// Inherited privileges are the one question whose answer goes through the cached
// rows of pg_authid (has_privs_of_role).  Before it is asked the whole table is
// looked through for rows with something out of line; it is asked only if neither
// the public nor the role itself has been granted the privilege.
//
// Locks are asked for, never waited for: VACUUM FULL or LOCK TABLE on one of the
// three catalogs costs the clients that come meanwhile an error, not everybody
// the dispatcher.  They are held until the transaction ends, so that what the
// caches do underneath does not wait either.

#include "pg/auth/shared_catalog.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_auth_members.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
}

namespace sluice::pg {
namespace {

// One scan of a shared catalog: by name, or all rows.
struct CatalogScan {
  Relation relation;
  SysScanDesc scan;
};

void lock_catalog(Oid catalog, const char *name) {
  if (!ConditionalLockRelationOid(catalog, AccessShareLock))
    ereport(ERROR,
            (errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("could not obtain lock on relation \"%s\"", name),
             errdetail("The pooled port does not wait for locks while it authenticates."), errhint("Try again.")));
}

// The caches and scans open an index only if it was known when this process
// started; REINDEX locks it apart from its table.
void lock_index(Oid index, const char *name) {
  if (criticalSharedRelcachesBuilt) lock_catalog(index, name);
}

CatalogScan begin_scan(Oid catalog, Oid name_index, AttrNumber name_column, const char *name) {
  CatalogScan result;
  ScanKeyData key;

  if (name != nullptr) ScanKeyInit(&key, name_column, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum(name));
  const bool is_role = catalog == AuthIdRelationId;
  const bool use_index = name != nullptr && criticalSharedRelcachesBuilt;
  lock_catalog(catalog, is_role ? "pg_authid" : "pg_database");
  if (use_index) lock_index(name_index, is_role ? "pg_authid_rolname_index" : "pg_database_datname_index");
  result.relation = table_open(catalog, NoLock);
  result.scan = systable_beginscan(result.relation, name_index, use_index, nullptr, name != nullptr ? 1 : 0, &key);
  return result;
}

void end_scan(CatalogScan *scan) {
  systable_endscan(scan->scan);
  table_close(scan->relation, NoLock);
}

CatalogScan begin_role_scan(const char *name) {
  return begin_scan(AuthIdRelationId, AuthIdRolnameIndexId, Anum_pg_authid_rolname, name);
}

// InvalidOid if there is no such role.
Oid find_role(const char *name) {
  CatalogScan scan = begin_role_scan(name);
  HeapTuple tuple = systable_getnext(scan.scan);
  const Oid oid = HeapTupleIsValid(tuple) ? (reinterpret_cast<Form_pg_authid> GETSTRUCT(tuple))->oid : InvalidOid;

  end_scan(&scan);
  return oid;
}

bool is_out_of_line(Datum value) {
  return VARATT_IS_EXTERNAL(DatumGetPointer(value));
}

void copy_role(HeapTuple tuple, TupleDesc description, RoleRow *row) {
  Form_pg_authid form = reinterpret_cast<Form_pg_authid> GETSTRUCT(tuple);
  bool is_null;

  row->oid = form->oid;
  strlcpy(row->name, NameStr(form->rolname), sizeof(row->name));
  row->superuser = form->rolsuper;
  row->may_log_in = form->rolcanlogin;
  row->connection_limit = form->rolconnlimit;

  const Datum secret = heap_getattr(tuple, Anum_pg_authid_rolpassword, description, &is_null);
  row->secret_out_of_reach = !is_null && is_out_of_line(secret);
  row->secret = is_null || row->secret_out_of_reach ? nullptr : TextDatumGetCString(secret);

  const Datum valid_until = heap_getattr(tuple, Anum_pg_authid_rolvaliduntil, description, &is_null);
  row->expires = !is_null;
  row->valid_until = is_null ? 0 : DatumGetTimestampTz(valid_until);
}

void copy_database(HeapTuple tuple, TupleDesc description, DatabaseRow *row) {
  Form_pg_database form = reinterpret_cast<Form_pg_database> GETSTRUCT(tuple);
  bool is_null;

  row->oid = form->oid;
  strlcpy(row->name, NameStr(form->datname), sizeof(row->name));
  row->owner = form->datdba;
  row->allows_connections = form->datallowconn;
  row->connection_limit = form->datconnlimit;

  const Datum permissions = heap_getattr(tuple, Anum_pg_database_datacl, description, &is_null);
  row->permissions_out_of_reach = !is_null && is_out_of_line(permissions);
  if (is_null)
    row->permissions = acldefault(OBJECT_DATABASE, form->datdba);
  else
    row->permissions = row->permissions_out_of_reach ? nullptr : DatumGetAclPCopy(permissions);
}

// Before the first question about memberships in a transaction.
void prepare_membership_questions() {
  static bool registered = false;

  lock_catalog(AuthMemRelationId, "pg_auth_members");
  lock_index(AuthMemMemRoleIndexId, "pg_auth_members_member_role_index");
  if (registered) return;
  lock_catalog(DatabaseRelationId, "pg_database");  // which initialize_acl opens
  initialize_acl();
  registered = true;
}

// Whether has_privs_of_role may be asked about `role`: no role that it is, or is
// a member of, has something out of line in pg_authid.
bool memberships_are_within_reach(Oid role) {
  CatalogScan scan = begin_role_scan(nullptr);
  bool within_reach = true;

  for (HeapTuple tuple = systable_getnext(scan.scan); within_reach && HeapTupleIsValid(tuple);
       tuple = systable_getnext(scan.scan)) {
    if (!HeapTupleHasExternal(tuple)) continue;
    within_reach = !is_member_of_role_nosuper(role, (reinterpret_cast<Form_pg_authid> GETSTRUCT(tuple))->oid);
  }
  end_scan(&scan);
  return within_reach;
}

bool is_granted_directly(Oid role, const Acl *permissions) {
  const AclItem *items = ACL_DAT(permissions);

  for (int i = 0; i < ACL_NUM(permissions); i++) {
    const bool concerns_role = items[i].ai_grantee == ACL_ID_PUBLIC || items[i].ai_grantee == role;
    if (concerns_role && (ACLITEM_GET_PRIVS(items[i]) & ACL_CONNECT) != 0) return true;
  }
  return false;
}

}  // namespace

bool read_role(const char *name, RoleRow *row) {
  CatalogScan scan = begin_role_scan(name);
  HeapTuple tuple = systable_getnext(scan.scan);
  const bool found = HeapTupleIsValid(tuple);

  if (found) copy_role(tuple, RelationGetDescr(scan.relation), row);
  end_scan(&scan);
  return found;
}

bool read_database(const char *name, DatabaseRow *row) {
  CatalogScan scan = begin_scan(DatabaseRelationId, DatabaseNameIndexId, Anum_pg_database_datname, name);
  HeapTuple tuple = systable_getnext(scan.scan);
  const bool found = HeapTupleIsValid(tuple);

  if (found) copy_database(tuple, RelationGetDescr(scan.relation), row);
  end_scan(&scan);
  return found;
}

void visit_roles(CatalogVisit visit, void *argument) {
  CatalogScan scan = begin_role_scan(nullptr);
  for (HeapTuple tuple = systable_getnext(scan.scan); HeapTupleIsValid(tuple); tuple = systable_getnext(scan.scan)) {
    Form_pg_authid form = reinterpret_cast<Form_pg_authid> GETSTRUCT(tuple);
    visit(form->oid, NameStr(form->rolname), argument);
  }
  end_scan(&scan);
}

void visit_databases(CatalogVisit visit, void *argument) {
  CatalogScan scan = begin_scan(DatabaseRelationId, DatabaseNameIndexId, Anum_pg_database_datname, nullptr);
  for (HeapTuple tuple = systable_getnext(scan.scan); HeapTupleIsValid(tuple); tuple = systable_getnext(scan.scan)) {
    Form_pg_database form = reinterpret_cast<Form_pg_database> GETSTRUCT(tuple);
    visit(form->oid, NameStr(form->datname), argument);
  }
  end_scan(&scan);
}

bool is_member_of(Oid role, const char *group_name) {
  if (!OidIsValid(role)) return false;
  const Oid group = find_role(group_name);
  if (!OidIsValid(group)) return false;
  prepare_membership_questions();
  return is_member_of_role_nosuper(role, group);
}

bool has_connect_privilege(Oid role, const DatabaseRow *database) {
  if (is_granted_directly(role, database->permissions)) return true;

  prepare_membership_questions();
  lock_index(AuthIdOidIndexId, "pg_authid_oid_index");
  if (!memberships_are_within_reach(role))
    ereport(ERROR,
            (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
             errmsg("privileges on database \"%s\" cannot be checked on the pooled port", database->name),
             errdetail("A role that the user belongs to has a password too long to be read without connecting to a "
                       "database.")));
  if (aclmask(database->permissions, role, database->owner, ACL_CONNECT, ACLMASK_ANY) != 0) return true;

  // Without a database of its own this process does not know that the owner's
  // members belong to pg_database_owner.
  return has_privs_of_role(role, database->owner) && is_granted_directly(ROLE_PG_DATABASE_OWNER, database->permissions);
}

}  // namespace sluice::pg
