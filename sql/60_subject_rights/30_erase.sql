-- [code] Erasure: every row of persons, their keys, their identifiers.
-- GDPR Art. 17, 19. Called by: gdpr_dpo. The rows are touched by gdpr_worker's generated functions, the keys by gdpr_keyholder's.

set local role gdpr_keyholder;

create or replace function gdpr_internal.destroy_keys(p_subjects bigint[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_gone bigint[];
begin
  with gone as (
    delete from gdpr_internal.subject_key as k where k.subject_id = any (p_subjects) returning k.subject_id
  )
  select array_agg(g.subject_id) into v_gone from gone as g;
  return coalesce(v_gone, '{}');
end
$function$;
comment on function gdpr_internal.destroy_keys(bigint[]) is
  'Destroys the data keys of persons and says whose there were: every copy of their ciphertext (table, log, replica, backup, audit) is unreadable from then on.';

set local role gdpr_owner;

create or replace function gdpr_internal.block_subjects(p_subjects bigint[], p_reason text)
returns table (subject_id bigint, kinds jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into gdpr_internal.identifier (digest, kind, blocked_at, block_reason)
  select distinct on (i.bare_digest) i.bare_digest, i.kind, statement_timestamp(), p_reason
  from gdpr_internal.identifier as i
  where i.subject_id = any (p_subjects) and i.bare_digest is not null
  order by i.bare_digest
  on conflict (digest) do nothing;
  return query
  with mine as (
    select i.digest, i.subject_id from gdpr_internal.identifier as i where i.subject_id = any (p_subjects) order by i.digest for update
  ), turned as (
    update gdpr_internal.identifier as i
    set subject_id = null, bare_digest = null, retired_at = null, blocked_at = statement_timestamp(), block_reason = p_reason
    from mine as m
    where i.digest = m.digest
    returning m.subject_id, i.kind
  )
  select k.subject_id, jsonb_object_agg(k.kind, k.n)
  from (select t.subject_id, t.kind, count(*) as n from turned as t group by t.subject_id, t.kind) as k
  group by k.subject_id;
end
$function$;
comment on function gdpr_internal.block_subjects(bigint[], text) is
  'Turns persons'' identifiers, and their addresses without plus-tags, into blocked ones; says of each person how many of which kind.';

create or replace function gdpr_internal.erase_rows(p_subjects bigint[])
returns gdpr_internal.erased_fact[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_holds gdpr_internal.held_fact[];
  v_facts gdpr_internal.erased_fact[];
  v_before text;
  v_hidden text;
begin
  if exists (select from gdpr_internal.live_hold) then
    select array_agg(row(t.id, h.subject_id, h.row_key, c.name, h.until)::gdpr_internal.held_fact)
    into v_holds
    from gdpr_internal.protected_table as t
    cross join lateral gdpr_internal.held_rows(t.id, p_subjects) as h
    cross join lateral unnest(coalesce(h.columns, array[null]::name[])) as c (name)
    where t.unprotected_at is null;
  end if;
  v_before := gdpr_internal.before_worker();
  select array_agg(f) into v_facts from gdpr_generated.erase_rows(p_subjects, v_holds) as f;
  perform gdpr_internal.after_worker(v_before);
  if exists (select from pg_policy as p where not p.polpermissive and p.polname !~ '^gdpr_') then
    select string_agg(format('%s on %s', h.policies, h.relation), E'\n' order by h.relation::text) into v_hidden
    from gdpr_internal.protected_table as t
    cross join lateral gdpr_internal.hiding_policies(t.relation) as h
    where t.unprotected_at is null;
    if v_hidden is not null then
      perform gdpr_internal.refuse('erasure_incomplete', v_hidden);
    end if;
  end if;
  return v_facts;
end
$function$;
comment on function gdpr_internal.erase_rows(bigint[]) is 'Erases the rows of persons, what holds and periods keep excepted, and says what was done.';

create or replace function gdpr_internal.note_remainder(p_subjects bigint[], p_facts gdpr_internal.erased_fact[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from gdpr_internal.erasure_remainder as r where r.subject_id = any (p_subjects);
  insert into gdpr_internal.erasure_remainder (subject_id, table_id, row_count, due_at)
  select f.subject_id, f.table_id, f.row_count, f.until from unnest(p_facts) as f where f.what = 'kept';
  insert into gdpr_internal.erasure_review (subject_id, table_id, column_name, row_key)
  select f.subject_id, f.table_id, f.column_name, k.key
  from unnest(p_facts) as f
  cross join lateral unnest(f.row_keys) as k (key)
  where f.what = 'review'
    and not exists (
      select from gdpr_internal.erasure_review as r
      where r.subject_id = f.subject_id and r.table_id = f.table_id and r.column_name = f.column_name and r.row_key = k.key
    );
  return gdpr_internal.destroy_keys(array(
    select s from unnest(p_subjects) as s
    except
    select f.subject_id from unnest(p_facts) as f where f.what = 'kept'
  ));
end
$function$;
comment on function gdpr_internal.note_remainder(bigint[], gdpr_internal.erased_fact[]) is
  'Remembers what stays of persons and what a human has to read, and destroys the keys of those of whom nothing stays: returns whose.';

create or replace function gdpr_internal.kept_for(p_table smallint, p_definition jsonb, p_subject bigint)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (
    select string_agg(w.why, '; ' order by w.n, w.why)
    from (
      select 1 as n, p_definition -> 'erase' ->> 'keep_until' as why
      union all
      select 2, format('%s: %s', c.key, c.value -> 'erase' ->> 'keep_until')
      from jsonb_each(p_definition -> 'columns') as c
      where c.value -> 'erase' ? 'keep_until'
      union all
      select distinct 3, 'hold: ' || h.ground
      from gdpr_internal.live_hold as h
      where coalesce(h.table_id, p_table) = p_table and coalesce(h.subject_id, p_subject) = p_subject
    ) as w
    where w.why is not null
  );
end
$function$;
comment on function gdpr_internal.kept_for(smallint, jsonb, bigint) is
  'What may keep rows of a person in a table: the period of the table, those of columns, the grounds of holds. No file numbers: the person reads it.';

create or replace function gdpr_internal.receipt_tables(p_subjects bigint[], p_facts gdpr_internal.erased_fact[])
returns table (subject_id bigint, tables jsonb)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
begin
  return query
  with fact as (
    select
      f.subject_id,
      f.table_id,
      sum(f.row_count) filter (where f.what in ('deleted', 'anonymised', 'spared')) as erased,
      sum(f.row_count) filter (where f.what = 'spared') as spared,
      sum(f.row_count) filter (where f.what = 'kept') as kept,
      min(f.until) filter (where f.what = 'kept') as until,
      sum(f.row_count) filter (where f.what = 'passed_on') as passed_on,
      sum(f.row_count) filter (where f.what = 'unlinked') as unlinked,
      jsonb_object_agg(f.column_name, f.row_count) filter (where f.what = 'review') as review
    from unnest(p_facts) as f
    group by f.subject_id, f.table_id
  )
  select
    s.id,
    jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'table', t.relation::text,
      'method', gdpr_internal.erasure_method(t.definition),
      'rows', coalesce(f.erased, 0),
      'anonymised_instead', f.spared,
      'kept', f.kept,
      'kept_until', case when f.until < 'infinity' then f.until end,
      'kept_for', case when f.kept > 0 then gdpr_internal.kept_for(t.id, t.definition, s.id) end,
      'passed_on', f.passed_on,
      'unlinked', f.unlinked,
      'review', f.review
    )) order by t.depth desc, t.id)
  from unnest(p_subjects) as s (id)
  cross join gdpr_internal.protected_table as t
  left join fact as f on f.subject_id = s.id and f.table_id = t.id
  where t.unprotected_at is null
  group by s.id;
end
$function$;
comment on function gdpr_internal.receipt_tables(bigint[], gdpr_internal.erased_fact[]) is
  'What was done, as receipts say it: a list of tables for each person. rows: erased; anonymised_instead: of these, emptied and not deleted, as rows that stay refer to them; kept, kept_until, kept_for: what a period or a hold keeps, restricted, and which; passed_on: joint rows that stay with the other person, without what was about this one; unlinked: rows of others here whose reference to a row of the person was cut; review: columns of free text in rows that stay, and in how many.';

create or replace function gdpr_internal.erase_persons(p_subjects bigint[], p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $function$
declare
  v_notices jsonb;
  v_blocked jsonb;
  v_facts gdpr_internal.erased_fact[];
  v_destroyed bigint[];
  v_records bigint[];
  v_state text;
  v_schema text;
  v_table text;
  v_column text;
  v_constraint text;
begin
  -- recipients know the persons by what is replaced and destroyed below
  perform gdpr_internal.queue_notices(p_subjects, 'erasure');
  select jsonb_object_agg(n.subject_id, n.notices) into v_notices from gdpr_internal.notices_of(p_subjects) as n;
  perform gdpr_internal.forget_mails(p_subjects);
  delete from gdpr_internal.token as t where t.subject_id = any (p_subjects);
  select jsonb_object_agg(b.subject_id, b.kinds) into v_blocked from gdpr_internal.block_subjects(p_subjects, 'erased') as b;
  update gdpr_internal.subject as s
  set erased_at = statement_timestamp(), ref = gen_random_uuid(), purposes = 1::bigint << 62, until = 'infinity'
  where s.id = any (p_subjects);
  v_facts := gdpr_internal.erase_rows(p_subjects);
  v_destroyed := gdpr_internal.note_remainder(p_subjects, v_facts);
  with written as (
    insert into gdpr_internal.erasure_record (subject_id, reason, receipt)
    select s.id, p_reason, jsonb_build_object(
      'subject', s.id,
      'erased_at', statement_timestamp(),
      'tables', coalesce(r.tables, '[]'),
      'identifiers_blocked', (
        select coalesce(sum(k.value::bigint), 0) from jsonb_each_text(v_blocked -> s.id::text) as k
      ),
      'blocked', coalesce(v_blocked -> s.id::text, '{}'),
      'notices', coalesce(v_notices -> s.id::text, '[]'),
      'key_destroyed', d.id is not null
    )
    from unnest(p_subjects) with ordinality as s (id, n)
    left join gdpr_internal.receipt_tables(p_subjects, v_facts) as r on r.subject_id = s.id
    left join unnest(v_destroyed) as d (id) on d.id = s.id
    order by s.n
    returning id, subject_id
  )
  select array_agg(w.id), array_agg(w.subject_id) into v_records, p_subjects from written as w;
  perform gdpr_internal.audit_events('ERASE', p_subjects, 'erasure', v_records, '{}');
exception when foreign_key_violation or restrict_violation or not_null_violation or check_violation or unique_violation or exclusion_violation then
  get stacked diagnostics v_state = returned_sqlstate,
    v_schema = schema_name, v_table = table_name, v_column = column_name, v_constraint = constraint_name;
  -- never the words of the error: those of PostgreSQL show keys and whole rows, those of planted code whatever it likes
  if v_table = '' and exists (select from gdpr.error_code as e where 'gdpr_' || e.name = v_constraint and e.sqlstate = v_state) then
    perform gdpr_internal.refuse(substr(v_constraint, 6));
  end if;
  perform gdpr_internal.refuse('erasure_blocked', gdpr_internal.known_obstacle(v_schema, v_table, v_column, v_constraint));
end
$function$;
comment on function gdpr_internal.erase_persons(bigint[], text) is
  'Erases persons who were found and locked: mails, tokens, identifiers, rows, keys; writes receipts and audit records. Errors: 23503 (erasure_blocked) what stands in the way, PR605, PR409.';

create or replace function gdpr_internal.lock_persons(p_subjects bigint[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_found bigint;
begin
  perform gdpr_internal.require_read_committed();
  -- before the persons, as a confirmation locks them
  perform from gdpr_internal.registration as r
  join gdpr_internal.identifier as i on i.digest = r.address
  where i.subject_id = any (p_subjects)
  order by r.id
  for update of r;
  -- whoever is inserting rows of these persons holds a share lock on an identifier, and then on the person: in their order
  perform from gdpr_internal.identifier as i where i.subject_id = any (p_subjects) order by i.digest for update;
  perform from gdpr_internal.subject as s where s.id = any (p_subjects) order by s.id for update;
  get diagnostics v_found = row_count;
  if v_found <> (select count(distinct s) from unnest(p_subjects) as s) or num_nulls(variadic p_subjects) > 0 then
    perform gdpr_internal.refuse('unknown_subject');
  end if;
  return array(
    select s.id from gdpr_internal.subject as s where s.id = any (p_subjects) and s.erased_at is null order by s.id
  );
end
$function$;
comment on function gdpr_internal.lock_persons(bigint[]) is
  'Locks persons against whoever writes rows of them, and returns those who are not erased yet. Errors: PR101, PR005.';

create or replace function gdpr.erase(p_subjects bigint[], p_reason text)
returns setof jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_new bigint[];
begin
  if p_reason is null or p_subjects is null then
    perform gdpr_internal.refuse('invalid_argument', 'the numbers of persons and a reason are needed');
  end if;
  v_new := gdpr_internal.lock_persons(p_subjects);
  if v_new <> '{}' then
    perform gdpr_internal.erase_persons(v_new, p_reason);
  end if;
  if cardinality(v_new) = 1 then
    -- a request is one person's
    perform gdpr_internal.note_request(v_new[1], 'erasure', jsonb_build_object('reason', p_reason));
  end if;
  return query
  select e.receipt
  from unnest(p_subjects) with ordinality as s (id, n)
  join gdpr_internal.erasure_record as e on e.subject_id = s.id
  order by s.n;
end
$function$;
comment on function gdpr.erase(bigint[], text) is
  'Erases many persons at once, all or none of them, and returns their receipts in the order asked for: a few thousand in a transaction are done as fast as can be. See gdpr.erase(bigint, text). p_reason stays when the person is gone: no personal data in it. Errors: PR101 unknown person, PR004, PR005 not at READ COMMITTED, 23503 (erasure_blocked), PR605, PR409. Art. 17.';

create or replace function gdpr.erase(p_subject bigint, p_reason text default 'erasure request')
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
-- for one person alone all that is done here is planned again and again, which takes longer than doing it
set plan_cache_mode = force_generic_plan
-- plans that fit when the tables have grown since
set enable_seqscan = off
set jit = off
as $function$
begin
  return (select r from gdpr.erase(array[p_subject], p_reason) as r);
end
$function$;
comment on function gdpr.erase(bigint, text) is
  'Erases a person: rows of every protected table are deleted or anonymised, whatever shape their foreign keys have; identifiers are blocked; the data key is destroyed unless a hold or a period keeps rows (those are restricted, and go when it ends). Rows that others refer to all the same are anonymised, references that may be null are cut. Returns a receipt without values; asked twice it gives the first one. gdpr.erasure_plan() shows before what it would do. The planner''s statistics keep sample values of plaintext columns until the next ANALYZE: gdpr.doctor() names the tables. p_reason stays when the person is gone: no personal data in it. Errors: PR101 unknown person, PR004, PR005 not at READ COMMITTED, 23503 (erasure_blocked) a table outside the policy refers to the rows, PR605 a trigger keeps rows, PR409 foreign keys were added since apply(). Art. 17.';

create or replace function gdpr.subjects_of(p_table regclass, p_keys text[])
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint;
  v_before text;
  v_subjects bigint[];
begin
  select t.id into v_table from gdpr_internal.protected_table as t where t.relation = p_table and t.unprotected_at is null;
  if v_table is null then
    perform gdpr_internal.refuse('not_protected');
  end if;
  v_before := gdpr_internal.before_worker();
  execute format('select gdpr_generated.%I($1)', 'subjects_of_' || v_table) into v_subjects using p_keys;
  perform gdpr_internal.after_worker(v_before);
  return coalesce(v_subjects, '{}');
end
$function$;
comment on function gdpr.subjects_of(regclass, text[]) is
  'The persons to whom rows belong, each once, by the rows'' primary keys as text (several columns: a JSON array of texts); keys without a row, and rows of nobody, count for nothing. Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key.';

create or replace function gdpr.subject_of(p_table regclass, p_key text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return (gdpr.subjects_of(p_table, array[p_key]))[1];
end
$function$;
comment on function gdpr.subject_of(regclass, text) is
  'The person a row belongs to, by the row''s primary key as text (several columns: a JSON array of texts); null when there is no such row. Errors: PR002 not protected, PR004 key of the wrong type, PR408 no primary key.';
