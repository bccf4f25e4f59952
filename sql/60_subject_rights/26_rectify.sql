-- [code] Rectification: proposed by the person or by staff, approved by an officer who is somebody else, carried out in all tables.
-- GDPR Art. 16, Art. 19. Called by: gdpr_dpo; roles to which the policy gives may = ["rectify"] propose.

set local role gdpr_owner;

create or replace function gdpr_internal.seal_changes(p_subject bigint, p_content jsonb)
returns text
language sql
volatile
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select coalesce(
    gdpr_internal.seal_evidence(p_subject, p_content::text), case when gdpr_internal.refuse('data_key_missing') then '' end
  );
end;
comment on function gdpr_internal.seal_changes(bigint, jsonb) is 'New values as evidence keeps them. Error: PR410: nothing is kept that the person''s key does not close.';

create or replace function gdpr_internal.record_corrections(p_corrections gdpr_internal.correction[], p_rectification bigint, p_reason text)
returns bigint[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set quote_all_identifiers = off
as $function$
declare
  v_records bigint[];
  v_subjects bigint[];
begin
  if exists (
    select from unnest(p_corrections) as c
    left join gdpr_internal.subject as s on s.id = c.subject_id and s.erased_at is null
    where s.id is null
  ) then
    perform gdpr_internal.refuse('erased');
  end if;
  with change as (
    select
      c.subject_id, c.n, c.value, c.statement, c.column_name is not null as placed,
      jsonb_build_object('table', t.relation::text, 'key', c.row_key, 'column', c.column_name) as place,
      format('%s.%I', t.relation, c.column_name) as name
    from unnest(p_corrections) as c
    left join gdpr_internal.protected_table as t on t.id = c.table_id
    where c.statement is not null or c.value is distinct from c.old
  ), person as (
    select
      c.subject_id,
      jsonb_build_object(
        'values', coalesce(jsonb_agg(c.place || jsonb_build_object('value', c.value) order by c.n) filter (where c.statement is null), '[]'),
        'statements', coalesce(
          jsonb_agg(case when c.placed then c.place else '{}' end || jsonb_build_object('statement', c.statement) order by c.n)
          filter (where c.statement is not null), '[]'
        )
      ) as content,
      array_agg(distinct c.name) filter (where c.statement is null) as columns
    from change as c
    group by c.subject_id
  ), recorded as (
    insert into gdpr_internal.rectification_record (subject_id, rectification_id, content, columns, reason, actor)
    select
      p.subject_id, p_rectification, gdpr_internal.seal_changes(p.subject_id, p.content), coalesce(p.columns, '{}'), gdpr_internal.seal_evidence(p.subject_id, p_reason),
      gdpr_internal.context_setting('actor')
    from person as p
    order by p.subject_id
    returning id, subject_id
  )
  select array_agg(r.id order by r.id), array_agg(r.subject_id order by r.id) into v_records, v_subjects from recorded as r;
  perform gdpr_internal.audit_events('RECTIFY', v_subjects, 'rectification_record', v_records, '{}');
  perform gdpr_internal.queue_notices(array_agg(c.subject_id), 'rectification', jsonb_build_object('columns', c.columns))
  from (
    -- statements that complete the data go to the recipients too: they learn about which of them
    select r.subject_id, coalesce(nullif(r.columns, '{}'), '{supplementary_statement}') as columns
    from gdpr_internal.rectification_record as r
    where r.id = any (v_records)
  ) as c
  group by c.columns;
  return coalesce(v_records, '{}');
end
$function$;
comment on function gdpr_internal.record_corrections(gdpr_internal.correction[], bigint, text) is
  'The evidence of a rectification, one record for each person for whom something changes; returns their numbers. Error: PR603.';

create or replace function gdpr_internal.carry_out(p_changes jsonb, p_subject bigint, p_rectification bigint, p_reason text)
returns table (record_id bigint, written bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_corrections gdpr_internal.correction[] := gdpr_internal.read_corrections(p_changes);
  v_subjects bigint[] := array[p_subject];
  v_records bigint[];
begin
  perform gdpr_internal.require_read_committed();
  perform gdpr_internal.refuse_problems(v_corrections);
  if p_subject is null then
    select array_agg(distinct s.subject_id) into v_subjects
    from (select c.table_id, array_agg(c.row_key) as keys from unnest(v_corrections) as c where c.table_id is not null group by c.table_id) as k
    join gdpr_internal.protected_table as t on t.id = k.table_id
    cross join lateral unnest(gdpr.subjects_of(t.relation, k.keys)) as s (subject_id);
  end if;
  -- persons before rows, as an eraser locks them
  perform from gdpr_internal.subject as s where s.id = any (v_subjects) order by s.id for share;
  v_corrections := gdpr_internal.judge_corrections(v_corrections, p_subject, true);
  perform gdpr_internal.refuse_problems(v_corrections);
  written := gdpr_internal.write_corrections(v_corrections);
  v_records := gdpr_internal.record_corrections(v_corrections, p_rectification, p_reason);
  if p_subject is not null then
    perform gdpr_internal.note_request(p_subject, 'rectification', jsonb_build_object('record', v_records[1]));
  end if;
  return query select r.id, written from unnest(v_records) as r (id);
end
$function$;
comment on function gdpr_internal.carry_out(jsonb, bigint, bigint, text) is
  'Carries a list of changes out: all of it or, with a problem, nothing. Returns the records, one for each person. p_subject null: rows of whomever. Errors: PR630, PR208, PR005.';

create or replace function gdpr_internal.propose_rectification(p_subject bigint, p_changes jsonb, p_reason text, p_by_person boolean)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_corrections gdpr_internal.correction[] := gdpr_internal.read_corrections(p_changes);
  v_id bigint;
begin
  perform gdpr_internal.require_subject(p_subject);
  if v_corrections = '{}' then
    perform gdpr_internal.refuse('invalid_argument', 'at least one change is needed');
  elsif octet_length(p_changes::text) > 1000000 then
    perform gdpr_internal.refuse('invalid_argument', 'changes of one proposal are at most a million bytes');
  end if;
  -- what only an officer may know is asked when it is approved: whether an identifier is another's or blocked, what stands there now
  perform gdpr_internal.refuse_problems(gdpr_internal.find_rows(v_corrections, p_subject, false));
  insert into gdpr_internal.rectification (subject_id, content, by_person, actor)
  values (
    p_subject, gdpr_internal.seal_changes(p_subject, jsonb_build_object('changes', p_changes, 'reason', p_reason)), p_by_person,
    gdpr_internal.context_setting('actor')
  )
  returning id into v_id;
  perform gdpr_internal.audit_event('RECTIFY', p_subject, jsonb_build_object('proposal', v_id));
  return v_id;
end
$function$;
comment on function gdpr_internal.propose_rectification(bigint, jsonb, text, boolean) is
  'See gdpr.propose_rectification(). p_by_person: the person asked; only the portal says so, which knows by the token who it is.';

create or replace function gdpr.propose_rectification(p_subject bigint, p_changes jsonb, p_reason text default null)
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
begin atomic
  select gdpr_internal.propose_rectification(p_subject, p_changes, p_reason, false);
end;
comment on function gdpr.propose_rectification(bigint, jsonb, text) is
  'Proposes corrections of a person''s data; nothing changes until another officer approves them. p_changes: a list of {"table", "key" (the row''s primary key as text; of several columns a JSON array of texts), "column", "value" (null empties)}, with "was" if it counts only while that value stands; or {"table", "key", "column", "statement"}, {"statement"}: a supplementary statement that is kept beside the data. Values and reason are kept as ciphertext under the person''s key. Returns its number. Errors: PR101, PR603, PR004, PR630 with a line for each change that cannot be (not this person''s row, a key, a value that the column cannot hold). Art. 16.';

create or replace function gdpr_internal.decide_rectification(p_rectification bigint)
returns gdpr_internal.rectification
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rectification gdpr_internal.rectification;
begin
  -- two who decide at once meet here
  select * into v_rectification from gdpr_internal.rectification as r where r.id = p_rectification for update;
  if v_rectification.id is null then
    perform gdpr_internal.refuse('invalid_argument', 'there is no such proposal');
  elsif exists (select from gdpr_internal.rectification_decision as d where d.rectification_id = p_rectification) then
    perform gdpr_internal.refuse('rectification_decided');
  end if;
  return v_rectification;
end
$function$;
comment on function gdpr_internal.decide_rectification(bigint) is 'A proposal about which nobody has decided, locked. Errors: PR004, PR632.';

create or replace function gdpr.approve_rectification(p_rectification bigint, p_reason text default null)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_rectification gdpr_internal.rectification;
  v_content jsonb;
  v_record bigint;
begin
  perform gdpr_internal.require_read_committed();
  v_rectification := gdpr_internal.decide_rectification(p_rectification);
  if v_rectification.proposed_by = session_user and not v_rectification.by_person then
    perform gdpr_internal.refuse('rectification_four_eyes');
  end if;
  perform gdpr_internal.require_subject(v_rectification.subject_id);
  v_content := gdpr_internal.open_evidence(v_rectification.subject_id, v_rectification.content)::jsonb;
  select c.record_id into v_record
  from gdpr_internal.carry_out(v_content -> 'changes', v_rectification.subject_id, p_rectification, p_reason) as c;
  insert into gdpr_internal.rectification_decision (rectification_id, approved, record_id, reason, actor)
  values (
    p_rectification, true, v_record, gdpr_internal.seal_evidence(v_rectification.subject_id, p_reason), gdpr_internal.context_setting('actor')
  );
  return v_record;
end
$function$;
comment on function gdpr.approve_rectification(bigint, text) is
  'Approves a proposal and carries it out, as gdpr.rectify() does: all of it or nothing. Not by the login that proposed it, unless the person did. p_reason: kept encrypted. Returns the record''s number, null where the data were so already. Errors: PR004 no such proposal, PR632 decided already, PR631 four eyes, PR630, PR208, PR603, PR005. Art. 16.';

create or replace function gdpr.reject_rectification(p_rectification bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rectification gdpr_internal.rectification;
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  v_rectification := gdpr_internal.decide_rectification(p_rectification);
  insert into gdpr_internal.rectification_decision (rectification_id, approved, reason, actor)
  values (
    p_rectification, false, coalesce(gdpr_internal.seal_evidence(v_rectification.subject_id, p_reason), 'erased'),
    gdpr_internal.context_setting('actor')
  );
  perform gdpr_internal.audit_event(
    'RECTIFY', v_rectification.subject_id, jsonb_build_object('proposal', p_rectification, 'approved', false)
  );
end
$function$;
comment on function gdpr.reject_rectification(bigint, text) is
  'Rejects a proposal; whoever made it may take it back so. p_reason: the ground, which the person is told (Art. 12(4)); kept encrypted. Errors: PR004 no such proposal or no reason, PR632 decided already. Art. 16.';

create or replace function gdpr.rectify(p_subject bigint, p_changes jsonb, p_reason text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.require_subject(p_subject);
  return (select c.record_id from gdpr_internal.carry_out(p_changes, p_subject, null, p_reason) as c);
end
$function$;
comment on function gdpr.rectify(bigint, jsonb, text) is
  'Corrects a person''s data at once, in one transaction: p_changes as gdpr.propose_rectification() takes them. Columns declared same_as follow in all tables where they held the old value; identifiers, digests, masks, ciphertext and audit follow by themselves. p_reason: kept encrypted. Returns the record''s number, null where the data were so already. Errors: PR101, PR603, PR004, PR630 with a line for each change that cannot be (an identifier that is blocked or another person''s, too), PR208 special categories without a condition, PR005. Art. 16.';

create or replace function gdpr.rectify_rows(p_changes jsonb, p_reason text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  return (
    select jsonb_build_object('persons', count(*), 'rows', coalesce(max(c.written), 0)) from gdpr_internal.carry_out(p_changes, null, null, p_reason) as c
  );
end
$function$;
comment on function gdpr.rectify_rows(jsonb, text) is
  'Corrects rows of many persons at once: p_changes as gdpr.rectify() takes them, the persons are those of the rows. p_reason: kept encrypted, under the key of each. Returns how many persons and rows changed. Errors: those of gdpr.rectify(). Art. 5(1)(d), Art. 16.';

create or replace function gdpr.compare_rectification(p_changes jsonb, p_subject bigint default null)
returns table (change bigint, subject_id bigint, table_name text, row_key text, column_name name, old text, new text, problem text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set quote_all_identifiers = off
as $function$
begin
  return query
  select c.n, c.subject_id, t.relation::text, c.row_key, c.column_name, c.old, coalesce(c.statement, c.value), c.problem
  from unnest(gdpr_internal.judge_corrections(gdpr_internal.read_corrections(p_changes), p_subject, false)) as c
  left join gdpr_internal.protected_table as t on t.id = c.table_id
  where c.problem is not null or c.statement is not null or c.value is distinct from c.old
  order by c.n, c.table_id, c.row_key, c.column_name;
end
$function$;
comment on function gdpr.compare_rectification(jsonb, bigint) is
  'What a list of changes, as gdpr.rectify() takes it, would change, and what is in the way: a row for each value that differs, copies included (they bear the number of the change they follow), with the reason if it cannot be. p_subject: whose rows they have to be; null: anybody''s. Changes nothing. Error: PR004 no list. Art. 16.';

create or replace function gdpr_internal.apply_rectifications(p_records bigint[])
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
set enable_nestloop = off
set jit = off
as $function$
declare
  v_records bigint[];
  v_subjects bigint[];
  v_changes jsonb;
  v_corrections gdpr_internal.correction[];
begin
  perform gdpr_internal.require_read_committed();
  perform from gdpr_internal.subject as s
  where s.id in (select r.subject_id from gdpr_internal.rectification_record as r where r.id = any (p_records))
  order by s.id
  for share;
  with record as materialized (
    select r.id, r.subject_id, gdpr_internal.open_evidence(r.subject_id, r.content)::jsonb as content
    from gdpr_internal.rectification_record as r
    join gdpr_internal.subject as s on s.id = r.subject_id and s.erased_at is null
    where r.subject_id in (select x.subject_id from gdpr_internal.rectification_record as x where x.id = any (p_records))
  ), latest as (
    -- of several rectifications of one value the last one counts, in whatever order they are asked for
    select distinct on (r.subject_id, v.value - 'value') r.id, r.subject_id, v.value as change
    from record as r
    cross join lateral jsonb_array_elements(r.content -> 'values') as v
    order by r.subject_id, v.value - 'value', r.id desc
  )
  select jsonb_agg(l.change order by l.id), array_agg(l.id order by l.id), array_agg(l.subject_id order by l.id)
  into v_changes, v_records, v_subjects
  from latest as l
  where l.id = any (p_records);
  if v_changes is null then
    return 0;
  end if;
  -- a row that is gone, or another person's by now, has nothing to be corrected
  v_corrections := array(
    select c
    from unnest(gdpr_internal.find_rows(gdpr_internal.read_corrections(v_changes), null, true)) as c
    join unnest(v_subjects) with ordinality as s (id, n) on s.n = c.n and s.id = c.subject_id
    where c.problem is null and c.value is distinct from c.old
  );
  perform gdpr_internal.write_corrections(v_corrections);
  perform gdpr_internal.audit_events(
    'RECTIFY', array_agg(r.subject_id), 'rectification_record', array_agg(r.id), '{"again": true}'
  )
  from (
    select distinct v_subjects[c.n] as subject_id, v_records[c.n] as id from unnest(v_corrections) as c
  ) as r
  having count(*) > 0;
  return cardinality(v_corrections);
end
$function$;
comment on function gdpr_internal.apply_rectifications(bigint[]) is
  'Carries recorded rectifications out again, as after a restore: a value that is so already is not written, one that a later record of the person names is left to that, rows that are gone are passed over. Twice changes nothing. Returns the values written. Errors: PR630, PR005.';

create or replace function gdpr_internal.apply_rectification(p_record bigint)
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select gdpr_internal.apply_rectifications(array[p_record]);
end;
comment on function gdpr_internal.apply_rectification(bigint) is 'gdpr_internal.apply_rectifications() for one record.';

create or replace view gdpr.rectification as
select
  r.id as rectification_id,
  r.subject_id,
  case when d.approved then 'approved' when not d.approved then 'rejected' else 'proposed' end as status,
  r.by_person,
  o.content -> 'changes' as changes,
  o.content ->> 'reason' as reason,
  r.proposed_at,
  r.proposed_by,
  r.actor,
  d.record_id,
  d.decided_at,
  d.decided_by,
  gdpr_internal.open_reason(r.subject_id, d.reason) as decision_reason
from gdpr_internal.rectification as r
left join gdpr_internal.rectification_decision as d on d.rectification_id = r.id
cross join lateral (
  select case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.content)::jsonb end as content
) as o;
comment on view gdpr.rectification is
  'Proposed corrections and what was decided about them. changes and reasons are shown to gdpr_dpo, while the person is not erased. Art. 16.';

create or replace view gdpr.rectification_log as
select
  r.id as record_id,
  r.subject_id,
  r.rectification_id,
  r.columns,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(r.subject_id, r.content)::jsonb end as content,
  gdpr_internal.open_reason(r.subject_id, r.reason) as reason,
  r.recorded_at,
  r.recorded_by,
  r.actor
from gdpr_internal.rectification_record as r;
comment on view gdpr.rectification_log is
  'Rectifications that were carried out: which columns, when, by whom. content, {"values", "statements"}, and reason are shown to gdpr_dpo, while the person is not erased; what stood there before, gdpr.audit_log has. Art. 16, Art. 5(2).';

create or replace view gdpr.supplementary_statement as
select
  l.record_id,
  l.subject_id,
  s.value ->> 'table' as table_name,
  s.value ->> 'key' as row_key,
  s.value ->> 'column' as column_name,
  s.value ->> 'statement' as statement,
  l.recorded_at
from gdpr.rectification_log as l
cross join lateral jsonb_array_elements(l.content -> 'statements') as s;
comment on view gdpr.supplementary_statement is
  'Statements with which persons have completed their data, about a value or about all of it; for gdpr_dpo. They belong into what the person is told on access. Art. 16.';

create or replace view gdpr.rectifiable_column as
select t.relation as table_name, c.column_name, c.type, not c.needed as nullable
from gdpr_internal.protected_table as t
cross join lateral gdpr_internal.rectifiable_columns(t.id) as c
where t.unprotected_at is null and c.refusal is null;
comment on view gdpr.rectifiable_column is
  'The columns in which values can be corrected: those of protected tables but keys, generated ones and what the database keeps, with the types they have for applications. Art. 16.';

create or replace function gdpr.rows_of(p_table regclass, p_subject bigint)
returns setof text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query select r.row_key from gdpr_internal.rows_of(gdpr_internal.table_id(p_table), array[p_subject], null) as r;
end
$function$;
comment on function gdpr.rows_of(regclass, bigint) is
  'The primary keys, as text, of a person''s rows in a protected table (several columns: JSON arrays of texts). Error: PR002.';
