-- The audit: one generic trigger for every table, whole rows as jsonb, a stable identifier for each row.
create schema audit;
create table audit.record_version (
  id bigint generated always as identity primary key,
  record_id uuid,
  old_record_id uuid,
  operation text not null,
  at timestamptz not null default now(),
  xid bigint not null default txid_current(),
  table_oid oid not null,
  table_schema name not null,
  table_name name not null,
  actor text,
  record jsonb,
  old_record jsonb
);
create index on audit.record_version (record_id) where record_id is not null;
create index on audit.record_version (old_record_id) where old_record_id is not null;
create index on audit.record_version using brin (at);

create function audit.record_id(p_table oid, p_row jsonb) returns uuid
language sql
stable
as $$
  select md5(p_table::text || jsonb_agg(p_row -> a.attname::text order by a.attnum)::text)::uuid
  from pg_index as i
  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
  where i.indrelid = p_table and i.indisprimary
$$;

create function audit.record_change() returns trigger
language plpgsql
security definer
as $$
declare
  v_new jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  v_old jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
begin
  insert into audit.record_version (
    record_id, old_record_id, operation, table_oid, table_schema, table_name, actor, record, old_record
  )
  values (
    audit.record_id(tg_relid, v_new), audit.record_id(tg_relid, v_old), tg_op,
    tg_relid, tg_table_schema, tg_table_name, current_setting('app.actor', true), v_new, v_old
  );
  return null;
end
$$;
