-- [code] Two sessions that write one row through a clear view: nothing is lost.
-- GDPR Art. 5(1)(d). PostgreSQL hands an INSTEAD OF trigger the row as its statement saw it, waits for nobody and never looks again: what
-- another session committed meanwhile would be overwritten, a condition that holds no longer taken for true. A trigger that is STABLE
-- reads with the snapshot of its statement, so one of these notes it; the write takes the version of the row that this snapshot shows.

set local role gdpr_owner;

create or replace function gdpr_policy.note_snapshot()
returns trigger
language plpgsql
stable
parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform set_config('gdpr.seen', pg_current_snapshot()::text, true);
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$function$;
comment on function gdpr_policy.note_snapshot() is
  'Trigger of clear views, before the one that writes: notes the snapshot of the statement, which a function that writes cannot see.';

set local role gdpr_keyholder;

create or replace function gdpr_internal.row_condition(p_relation regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select string_agg(format('t.%1$I operator(pg_catalog.=) old.%1$I', a.attname), ' and ')
  from (
    -- what names one row: the primary key, else the shortest unique one that is never null
    select x.indrelid, (x.indkey::smallint[])[0:x.indnkeyatts - 1] as columns
    from pg_index as x
    where x.indrelid = p_relation and x.indisunique and x.indimmediate and x.indisvalid and x.indpred is null and x.indexprs is null
      and not exists (
        select from pg_attribute as a where a.attrelid = x.indrelid and a.attnum = any (x.indkey) and (not a.attnotnull or a.attname ~ '^gdpr_')
      )
    order by not x.indisprimary, x.indnkeyatts, x.indexrelid
    limit 1
  ) as x
  join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = any (x.columns);
end;
comment on function gdpr_internal.row_condition(regclass) is
  'The SQL for "the row t of the table is the row old of its clear view"; null for a table without a key that names one row.';

create or replace function gdpr_internal.snapshot_code()
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select
    E'v_seen := pg_catalog.current_setting(''gdpr.seen'')::pg_catalog.pg_snapshot;\n'
    '  v_next := pg_catalog.pg_snapshot_xmax(v_seen)::pg_catalog.text::bigint;\n'
    -- a snapshot does not show as such what its own transaction wrote
    '  v_version := pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid;\n';
end;
comment on function gdpr_internal.snapshot_code() is 'The PL/pgSQL with which gdpr_generated.write_...() begins: what note_snapshot() left.';

create or replace function gdpr_internal.whole_number(p_xid text, p_next text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  -- 32 bits of 64, and rows keep them for ever: what is more than 2^28 later than the statement's next transaction is old
  select format(
    '((%1$s::pg_catalog.text::bigint operator(pg_catalog.-) %2$s operator(pg_catalog.-) 268435456 operator(pg_catalog.&) 4294967295)'
    ' operator(pg_catalog.+) %2$s operator(pg_catalog.-) 4026531840)::pg_catalog.text::pg_catalog.xid8',
    p_xid, p_next
  );
end;
comment on function gdpr_internal.whole_number(text, text) is 'The SQL for the whole number of a transaction of which xmin is a half, beside the next one of a snapshot.';

create or replace function gdpr_internal.seen_condition(p_version text, p_next text, p_seen text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select format(
    '(t.xmin operator(pg_catalog.=) %s or pg_catalog.pg_visible_in_snapshot(%s, %s))',
    p_version, gdpr_internal.whole_number('t.xmin', p_next), p_seen
  );
end;
comment on function gdpr_internal.seen_condition(text, text, text) is
  'The SQL for "the version t of a row is what the statement saw", or p_version, which may be written all the same.';

create or replace function gdpr_internal.seen_again_code(p_table smallint, p_condition text)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- run when nothing was written. The version first, the row then: who comes in between is noticed when the write is tried again
  select format(
    E'v_before := v_version;\n'
    'select t.xmin, %9$s as seen into v_now from %1$s as t where %2$s;\n'
    -- gone or hidden by now, as PostgreSQL would find it; or what was seen, and a trigger of the table''s own kept the row
    'if not found or v_now.seen or v_now.xmin operator(pg_catalog.=) v_before then\n  return null;\nend if;\n'
    'v_version := v_now.xmin;\n'
    'select t.* into v_now from gdpr_clear.%3$I as t where %2$s;\n'
    'if not found then\n  return null;\nend if;\n'
    -- gates and data keys change below what the view shows. A statement can meet a row twice, or its triggers another row: what is in
    -- progress and shows, this transaction wrote
    'if not pg_catalog.record_image_eq(v_now, old) and pg_catalog.pg_xact_status(%10$s) operator(pg_catalog.<>) ''in progress'' then\n'
    '  raise exception using errcode = %4$L, message = %5$L, hint = %6$L, constraint = %7$L, detail = %8$L;\nend if;\n',
    t.relation, p_condition, t.view_name, e.sqlstate, e.message, e.hint, 'gdpr_' || e.name, format('view gdpr_clear.%I', t.view_name),
    gdpr_internal.seen_condition('v_version', 'v_next', 'v_seen'), gdpr_internal.whole_number('v_version', 'v_next')
  )
  from gdpr_internal.protected_table as t
  cross join gdpr.error_code as e
  where t.id = p_table and e.name = 'row_changed';
end;
comment on function gdpr_internal.seen_again_code(smallint, text) is
  'The PL/pgSQL of gdpr_generated.write_...() for a row of which nothing was written: it returns null where the row is gone or was kept, and goes on with v_version where that one may be written. Error: gdpr_row_changed (40001).';
