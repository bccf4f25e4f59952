-- [code] Holds: placing, releasing, and which rows of which persons they keep.
-- GDPR Art. 17(3). Called by: gdpr_dpo; held_rows() by erasure and retention. Rows are listed by gdpr_worker, which has no keys, and
-- their primary keys digested by gdpr_keyholder, which touches no rows.

set local role gdpr_keyholder;

create or replace function gdpr_internal.row_keys(p_table smallint, p_keys text[])
returns uuid[]
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $function$
declare
  v_keys gdpr_internal.keyring;
begin
  v_keys := gdpr_internal.keyring();
  return array(
    select gdpr_internal.keyed_digest(v_keys.digest_key, 'row ' || p_table, k.key)
    from unnest(p_keys) with ordinality as k (key, n)
    order by k.n
  );
end
$function$;
comment on function gdpr_internal.row_keys(smallint, text[]) is 'gdpr_internal.row_key() for many rows, in their order.';

set local role gdpr_owner;

create or replace function gdpr_internal.hold_article(p_ground text)
returns text
language sql
immutable
parallel safe
security invoker
begin atomic
  select case p_ground
    when 'freedom_of_expression' then 'Art. 17(3)(a)'
    when 'legal_obligation' then 'Art. 17(3)(b)'
    when 'public_health' then 'Art. 17(3)(c)'
    when 'archiving' then 'Art. 17(3)(d)'
    when 'legal_claims' then 'Art. 17(3)(e)'
  end;
end;
comment on function gdpr_internal.hold_article(text) is 'The article that a ground of a hold stands on; null: it is no ground.';

create or replace view gdpr_internal.live_hold as
select h.id, h.subject_id, h.table_id, h.row_key, gdpr_internal.present_names(h.table_id, h.recorded_at, h.columns::text[])::name[] as columns, h.ground, h.valid_until
from gdpr_internal.hold as h
where h.valid_until > statement_timestamp()
  and not exists (select from gdpr_internal.hold_end as e where e.hold_id = h.id);
comment on view gdpr_internal.live_hold is 'Holds that hold at the statement''s time: one whose day has come ends by itself.';

create or replace function gdpr_internal.rows_of(p_table smallint, p_subjects bigint[], p_keys text[])
returns table (subject_id bigint, row_key text)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_subjects bigint[];
  v_rows text[];
begin
  execute format('select array_agg(k.subject_id), array_agg(k.row_key) from gdpr_generated.%I($1, $2) as k', 'keys_' || p_table)
  into v_subjects, v_rows
  using p_subjects, p_keys;
  perform gdpr_internal.after_worker(v_before);
  return query select r.subject_id, r.row_key from unnest(v_subjects, v_rows) as r (subject_id, row_key);
end
$function$;
comment on function gdpr_internal.rows_of(smallint, bigint[], text[]) is
  'The primary keys of rows, as gdprdb digests them, and whose they are: of these persons, or (p_subjects null) those named by these keys. Errors: PR004 key of the wrong type, PR408 no primary key.';

create or replace function gdpr.place_hold(
  p_subject bigint, p_ground text, p_reference text, p_table regclass default null, p_key text default null, p_columns name[] default null,
  p_until timestamptz default 'infinity'
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_table smallint := case when p_table is not null then gdpr_internal.table_id(p_table) end;
  v_row record;
  v_subject bigint := p_subject;
  v_digest uuid;
  v_erased boolean := false;
  v_id bigint;
begin
  perform gdpr_internal.require_read_committed();
  if gdpr_internal.hold_article(p_ground) is null then
    perform gdpr_internal.refuse('invalid_argument', 'ground is one of legal_claims, legal_obligation, public_health, archiving, freedom_of_expression');
  elsif nullif(p_reference, '') is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reference is needed: the law, the file number');
  elsif coalesce(p_until <= statement_timestamp(), true) then
    perform gdpr_internal.refuse('invalid_argument', 'a hold ends in the future');
  elsif v_table is null and (p_subject is null or p_key is not null or p_columns is not null) then
    perform gdpr_internal.refuse('invalid_argument', 'a hold is of a person, or names a table; rows and columns are of a table');
  elsif p_columns = '{}' or exists (
    select from unnest(p_columns) as c (name)
    where not exists (
      select from pg_attribute as a
      where a.attrelid = p_table and a.attname = c.name and a.attnum > 0 and not a.attisdropped and a.attname !~ '^gdpr_'
    )
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'the table has no such columns');
  end if;
  -- retention that is under way has asked for holds already: it is waited for, and what it left is held
  perform from gdpr_internal.retention_pass as p for share;
  if p_key is not null then
    select r.subject_id, r.row_key into v_row from gdpr_internal.rows_of(v_table, null, array[p_key]) as r;
    if v_row.row_key is null then
      perform gdpr_internal.refuse('invalid_argument', 'there is no row with this key');
    elsif v_row.subject_id is null or coalesce(p_subject, v_row.subject_id) <> v_row.subject_id then
      perform gdpr_internal.refuse('invalid_argument', 'the row is not of this person');
    end if;
    v_subject := v_row.subject_id;
    v_digest := gdpr_internal.row_key(v_table, v_row.row_key);
  end if;
  if v_subject is not null then
    -- an erasure that is under way is waited for, and one that comes later sees this hold
    perform from gdpr_internal.subject as s where s.id = v_subject for key share;
    v_erased := exists (select from gdpr_internal.erasure_remainder as r where r.subject_id = v_subject);
    if not v_erased then
      perform gdpr_internal.require_subject(v_subject);
    end if;
  end if;
  insert into gdpr_internal.hold (subject_id, table_id, row_key, columns, ground, reference, valid_until, actor)
  values (v_subject, v_table, v_digest, p_columns, p_ground, p_reference, p_until, gdpr_internal.context_setting('actor'))
  returning id into v_id;
  if v_erased then
    -- what a period still kept of the person has another end now
    perform gdpr_internal.finish_erasures(1, array[v_subject]);
  end if;
  perform gdpr_internal.audit_event('HOLD', v_subject, jsonb_build_object('hold_id', v_id, 'ground', p_ground));
  return v_id;
end
$function$;
comment on function gdpr.place_hold(bigint, text, text, regclass, text, name[], timestamptz) is
  'Holds data: neither erasure nor retention deletes it until the hold is released or p_until comes. Of a person (p_subject; of one who was erased, what is still kept) in all tables, in one (p_table), in one row of it (p_key: primary key as text, several columns as a JSON array of texts) or in some columns; p_subject null with a table: of every person there. p_ground: legal_claims (Art. 17(3)(e)), legal_obligation (b), public_health (c), archiving (d), freedom_of_expression (a). p_reference: law or file number, no personal data. Returns its number. Errors: PR101, PR603, PR002, PR004, PR005, PR408. Art. 17(3).';

create or replace function gdpr.release_hold(p_hold bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_hold gdpr_internal.live_hold;
begin
  perform gdpr_internal.require_read_committed();
  if nullif(p_reason, '') is null then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  select h.* into v_hold from gdpr_internal.live_hold as h where h.id = p_hold;
  if v_hold.id is null then
    perform gdpr_internal.refuse('hold_ended');
  end if;
  insert into gdpr_internal.hold_end (hold_id, reason, actor)
  values (
    p_hold,
    -- of a person without a key nothing is kept; a hold on everybody is about none
    case when v_hold.subject_id is null then p_reason else coalesce(gdpr_internal.seal_evidence(v_hold.subject_id, p_reason), 'erased') end,
    gdpr_internal.context_setting('actor')
  )
  on conflict (hold_id) do nothing;
  if not found then
    perform gdpr_internal.refuse('hold_ended');
  end if;
  perform gdpr_internal.audit_event('RELEASE', v_hold.subject_id, jsonb_build_object('hold_id', p_hold));
  -- of those it kept something of although they were erased; a row under hold may have become another's
  perform gdpr_internal.finish_erasures(2147483647, array(
    select distinct r.subject_id from gdpr_internal.erasure_remainder as r
    where coalesce(v_hold.table_id, r.table_id) = r.table_id
      and (v_hold.subject_id is null or v_hold.row_key is not null or v_hold.subject_id = r.subject_id)
  ));
end
$function$;
comment on function gdpr.release_hold(bigint, text) is
  'Ends a hold; what it kept of persons who were erased meanwhile goes now. p_reason: kept encrypted under the key of the person whom the hold is of; no personal data where it is of everybody. Errors: PR801 no such hold or ended before, PR004, PR005. Art. 17(3).';

create or replace function gdpr_internal.held_rows(p_table smallint, p_subjects bigint[])
returns table (subject_id bigint, row_key text, columns name[], until timestamptz, hold_id bigint)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_subjects bigint[];
  v_keys text[];
begin
  return query
  select p.subject_id, null::text, h.columns, h.valid_until, h.id
  from gdpr_internal.live_hold as h
  join unnest(p_subjects) as p (subject_id) on p.subject_id = h.subject_id
  where h.row_key is null and coalesce(h.table_id, p_table) = p_table
  union all
  select p.subject_id, null::text, h.columns, h.valid_until, h.id
  from gdpr_internal.live_hold as h
  cross join unnest(p_subjects) as p (subject_id)
  where h.row_key is null and h.table_id = p_table and h.subject_id is null;
  if not exists (select from gdpr_internal.live_hold as h where h.table_id = p_table and h.row_key is not null) then
    return;
  end if;
  select array_agg(r.subject_id), array_agg(r.row_key) into v_subjects, v_keys from gdpr_internal.rows_of(p_table, p_subjects, null) as r;
  return query
  select r.subject_id, r.row_key, h.columns, h.valid_until, h.id
  from unnest(v_subjects, v_keys, gdpr_internal.row_keys(p_table, v_keys)) as r (subject_id, row_key, digest)
  join gdpr_internal.live_hold as h on h.table_id = p_table and h.row_key = r.digest;
end
$function$;
comment on function gdpr_internal.held_rows(smallint, bigint[]) is
  'What holds keep of these persons in a table, one row a hold: row_key null: all their rows; columns null: the whole row; until, hold_id: which hold, and when it ends by itself. row_key: the primary key as gdpr_internal.key_text() writes it.';

create or replace view gdpr.hold as
select
  h.id as hold_id,
  h.subject_id,
  t.relation as table_name,
  h.row_key,
  h.columns,
  h.ground,
  gdpr_internal.hold_article(h.ground) as article,
  h.reference,
  case
    when e.hold_id is not null then 'released'
    when h.valid_until <= statement_timestamp() then 'over'
    else 'holds'
  end as state,
  h.recorded_at as held_since,
  h.valid_until as held_until,
  h.recorded_by,
  e.ended_at as released_at,
  gdpr_internal.open_reason(h.subject_id, e.reason) as release_reason,
  e.recorded_by as released_by
from gdpr_internal.hold as h
left join gdpr_internal.protected_table as t on t.id = h.table_id
left join gdpr_internal.hold_end as e on e.hold_id = h.id;
comment on view gdpr.hold is
  'Holds: what of whom may not be deleted, on which ground, until when. subject_id null: of every person in the table; table_name null: in every table; row_key: keyed digest of one row''s primary key; columns null: whole rows. state: holds, over (its day came), released. Art. 17(3), 5(2).';
