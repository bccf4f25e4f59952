-- [code] The Merkle tree over audit records: how a record becomes a leaf, and leaves one hash (RFC 6962, section 2.1).
-- GDPR Art. 5(2). Called by: sealing and verification. docs/audit.md says how to compute the same elsewhere.

set local role gdpr_owner;

create or replace function gdpr_internal.here()
returns oid
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- by name: the type is made anew where a restored database comes to be at home
  select to_regtype('gdpr_generated.place')::oid;
end;
comment on function gdpr_internal.here() is 'The place that audit records are of that are written now.';

create or replace view gdpr_internal.audit_leaf as
select
  a.place,
  a.at,
  a.xid,
  a.id,
  row(
    a.id, a.at, a.xid, a.operation, a.table_id, a.subject_id, a.row_key, a.purpose_id, a.actor, a.request, a.login, a.role, a.client_addr,
    a.application_name, a.changed, a.row_hash, a.payload
  )::text as record
from gdpr_internal.audit_record as a;
comment on view gdpr_internal.audit_leaf is
  'Audit records as the text that is sealed: the columns in this order, as PostgreSQL writes a row, with TimeZone UTC, DateStyle ISO and bytea in hexadecimal, which whoever reads it has to set.';

create or replace function gdpr_internal.leaf_hash(p_record text)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select sha256('\x00'::bytea || convert_to(p_record, 'UTF8'));
end;
comment on function gdpr_internal.leaf_hash(text) is 'The hash of a leaf: SHA-256 over a zero byte and the record.';

create or replace function gdpr_internal.tree_hash(p_leaves bytea)
returns bytea
language plpgsql
immutable
strict
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $function$
declare
  v_level bytea := p_leaves;
  v_nodes integer := length(p_leaves) / 32;
begin
  -- pairs from the left, the odd one goes up as it is: the same tree as the RFC's, which splits at powers of two
  while v_nodes > 1 loop
    v_level := (
      select string_agg(sha256('\x01'::bytea || substr(v_level, 64 * n.i + 1, 64)), ''::bytea)
      from generate_series(0, v_nodes / 2 - 1) as n (i)
    ) || case when v_nodes % 2 = 1 then substr(v_level, 32 * v_nodes - 31) else '' end;
    v_nodes := (v_nodes + 1) / 2;
  end loop;
  return case when v_nodes = 0 then sha256('') else v_level end;
end
$function$;
comment on function gdpr_internal.tree_hash(bytea) is 'The Merkle tree hash over hashes of 32 bytes each, one after another. A node is SHA-256 over a byte 1 and its two children.';

create or replace function gdpr_internal.leaf_blocks(
  p_place oid, p_month date, p_from xid8, p_below xid8, p_after bigint, p_last bigint
)
returns table (block integer, leaves bytea, records integer, first_id bigint, last_id bigint)
language sql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
set bytea_output = 'hex'
set jit = off
begin atomic
  select (l.n / 65536)::integer, string_agg(l.leaf, ''::bytea order by l.n), count(*)::integer, min(l.id), max(l.id)
  from (
    select row_number() over (order by r.xid, r.id) - 1 as n, r.id, r.leaf
    from (
      -- hashed before they are sorted: a hash is a tenth of its record
      select a.xid, a.id, gdpr_internal.leaf_hash(a.record) as leaf
      from gdpr_internal.audit_leaf as a
      where a.place = p_place and a.at >= p_month::timestamptz and a.at < p_month::timestamptz + interval '1 month'
        and a.xid >= p_from and a.xid < p_below
        -- one probe of the primary key finds where to begin
        and a.id > p_after and a.id <= p_last
      offset 0
    ) as r
  ) as l
  group by l.n / 65536
  order by l.n / 65536;
end;
comment on function gdpr_internal.leaf_blocks(oid, date, xid8, xid8, bigint, bigint) is
  'Leaves of the records of a place and month (UTC) with p_from <= transaction < p_below and p_after < number <= p_last, in the order of transactions and numbers, in blocks of 65,536 as the seals have them.';

create or replace function gdpr_internal.short_leaves(p_leaves bytea)
returns bytea
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select string_agg(substr(p_leaves, 32 * n.i + 1, 8), ''::bytea) from generate_series(0, length(p_leaves) / 32 - 1) as n (i);
end;
comment on function gdpr_internal.short_leaves(bytea) is 'The first 8 bytes of each of the hashes of 32 bytes.';
