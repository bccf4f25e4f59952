-- [code] The generator of erasure: the deletions in their order, and erase_rows(), which calls every step of every table.
-- GDPR Art. 17. It follows the foreign keys between all protected tables, and so is made anew with each.

set local role gdpr_worker;

create or replace function gdpr_generated.generate_deletes()
returns smallint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_group record;
  v_order smallint[] := '{}';
begin
  for v_group in
    -- tables that refer to each other in a circle are one group; groups that refer come before those that they refer to
    with recursive node as (
      select t.id from gdpr_internal.protected_table as t
      where t.unprotected_at is null and gdpr_internal.erasure_method(t.definition) = 'delete'
    ), reach (id, other) as (
      select n.id, n.id from node as n
      union
      select r.id, l.parent_id
      from reach as r
      join gdpr_internal.protected_link as l on l.child_id = r.other
      join node as n on n.id = l.parent_id
    ), grouped as (
      select r.id, (select min(b.other) from reach as b join reach as c on c.id = b.other and c.other = b.id where b.id = r.id) as head, count(*) as reached
      from reach as r
      group by r.id
    )
    select g.head, array_agg(g.id order by g.id) as ids, max(g.reached) as reached
    from grouped as g
    group by g.head
    order by max(g.reached) desc, g.head
  loop
    perform gdpr_generated.define_step(v_group.head, 'delete', false, (
      select format(E'return query\nwith %s\n%s;\n',
        string_agg(format(
          E'gone_%1$s as (\n  delete from %2$s as t where t.gdpr_subject_id = any (p_subjects) and t.gdpr_purposes >= 0 returning t.gdpr_subject_id as subject_id\n)',
          t.id, t.relation
        ), ', ' order by t.id),
        string_agg(rtrim(gdpr_generated.facts_code(t.id, 'deleted', 'gone_' || t.id), E'\n'), E'\nunion all\n' order by t.id)
      )
      from gdpr_internal.protected_table as t
      where t.id = any (v_group.ids)
    ));
    v_order := v_order || v_group.head;
  end loop;
  return v_order;
end
$function$;
comment on function gdpr_generated.generate_deletes() is 'Generates the steps that delete rows, one for each circle of foreign keys; returns their tables in order.';

create or replace function gdpr_generated.generate_erasures()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table record;
  v_function regprocedure;
  v_deletes smallint[];
  v_calls record;
begin
  for v_function in
    select p.oid from pg_proc as p
    where p.pronamespace = 'gdpr_generated'::regnamespace and p.proowner = 'gdpr_worker'::regrole and p.proname ~ '^t[0-9]+_[a-z_]+$'
  loop
    execute format('drop function %s', v_function);
  end loop;
  for v_table in
    select t.id, gdpr_internal.erasure_method(t.definition) as method from gdpr_internal.protected_table as t where t.unprotected_at is null order by t.id
  loop
    perform gdpr_generated.generate_keep(v_table.id);
    perform gdpr_generated.generate_joint(v_table.id);
    if v_table.method = 'anonymise' then
      perform gdpr_generated.generate_anonymise(v_table.id, 'anonymise', '');
    end if;
    perform gdpr_generated.generate_links(v_table.id);
  end loop;
  v_deletes := gdpr_generated.generate_deletes();
  select
    string_agg(c.call, '' order by t.depth desc, t.id) filter (where c.step = 'keep') as keep,
    string_agg(c.call, '' order by t.depth desc, t.id) filter (where c.step in ('pass_on', 'anonymise')) as anonymise,
    string_agg(c.call, '' order by t.id) filter (where c.step = 'unlink') as unlink,
    string_agg(c.call || E'v_more := v_more or found;\n', '' order by t.depth desc, t.id) filter (where c.step = 'spare') as spare,
    string_agg(c.call, '' order by array_position(v_deletes, t.id)) filter (where c.step = 'delete') as deletes
  into v_calls
  from gdpr_internal.protected_table as t
  join pg_proc as p on p.pronamespace = 'gdpr_generated'::regnamespace and p.proname ~ ('^t' || t.id || '_')
  cross join lateral (
    select s.step, format(E'return query select * from gdpr_generated.%I(p_subjects%s);\n', p.proname, case s.step when 'keep' then ', p_holds' else '' end) as call
    from (select substr(p.proname, length('t' || t.id || '_') + 1)) as s (step)
  ) as c
  where t.unprotected_at is null;

  perform gdpr_generated.define(format(
    $code$
create or replace function gdpr_generated.erase_rows(p_subjects bigint[], p_holds gdpr_internal.held_fact[])
returns setof gdpr_internal.erased_fact
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set row_security = on
as $body$
declare
  v_more boolean;
begin
  if gdpr_internal.link_fingerprint() <> %1$L then
    perform gdpr_internal.refuse('drifted', 'foreign keys between protected tables');
  end if;
%2$s%3$s%4$s%5$s  return;
end
$body$
$code$,
    gdpr_internal.link_fingerprint(),
    gdpr_internal.indented(coalesce(v_calls.keep, '') || coalesce(v_calls.anonymise, ''), '  '),
    -- a row that is anonymised stays, and so does what it refers to
    coalesce(gdpr_internal.indented(
      E'loop\n  v_more := false;\n' || gdpr_internal.indented(v_calls.spare, '  ') || E'  exit when not v_more;\nend loop;\n', '  '
    ), ''),
    gdpr_internal.indented(coalesce(v_calls.unlink, '') || coalesce(v_calls.deletes, ''), '  '),
    (
      select gdpr_internal.indented(coalesce(string_agg(format(
        E'if exists (select from %1$s as t where t.gdpr_subject_id = any (p_subjects) and t.gdpr_purposes >= 0) then\n'
        '  perform gdpr_internal.refuse(''erasure_incomplete'', %1$L);\nend if;\n', t.relation
      ), '' order by t.id), ''), '  ')
      from gdpr_internal.protected_table as t
      where t.unprotected_at is null
    )
  ));
  comment on function gdpr_generated.erase_rows(bigint[], gdpr_internal.held_fact[]) is
    'Erases the rows of persons in every protected table and says what it did, a line for each table, person and kind. Generated by gdpr.apply().';
  grant execute on function gdpr_generated.erase_rows(bigint[], gdpr_internal.held_fact[]) to gdpr_owner;
end
$function$;
comment on function gdpr_generated.generate_erasures() is
  'Generates erasure for all protected tables: it follows the foreign keys between them, and so is made anew with each.';
