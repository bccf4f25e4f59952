-- [code] Persons with many rows, page by page: no answer is larger than its page, whatever a person has.
-- GDPR Art. 15, 20. Called by: gdpr_dpo, in one transaction at REPEATABLE READ (gdprdb subject export).

set local role gdpr_keyholder;

create or replace function gdpr_internal.row_pages(p_subject bigint, p_size integer)
returns table (table_id smallint, part oid, places tid[])
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_before text := gdpr_internal.before_worker();
  v_pages jsonb;
begin
  select jsonb_agg(jsonb_build_object('table_id', p.table_id, 'part', p.part, 'places', p.places::text)) into v_pages
  from gdpr_generated.access_pages(p_subject, p_size) as p;
  perform gdpr_internal.after_worker(v_before);
  return query
  select (p.value ->> 'table_id')::smallint, (p.value ->> 'part')::oid, (p.value ->> 'places')::tid[]
  from jsonb_array_elements(v_pages) with ordinality as p (value, n)
  order by p.n;
end
$function$;
comment on function gdpr_internal.row_pages(bigint, integer) is 'Where a person''s rows are: table, partition and places, p_size at a time.';

set local role gdpr_owner;

create or replace function gdpr.access_pages(p_subject bigint, p_portable boolean default false, p_size integer default 1000)
returns table (section text, table_name text, page jsonb)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
  v_tables smallint[];
begin
  if p_size is null or p_size not between 1 and 100000 then
    perform gdpr_internal.refuse('invalid_argument', 'p_size is 1 to 100000');
  end if;
  perform gdpr_internal.note_access(p_subject, case when p_portable then 'portable_copy' else 'access_report' end);
  if p_portable then
    v_tables := gdpr_internal.portable_tables(p_subject);
  end if;
  return query
  select 'rows', t.relation::text, jsonb_build_object('table', p.table_id, 'part', p.part, 'places', p.places::text, 'portable', p_portable)
  from gdpr_internal.row_pages(p_subject, p_size) with ordinality as p (table_id, part, places, n)
  join gdpr_internal.protected_table as t on t.id = p.table_id
  where v_tables is null or p.table_id = any (v_tables)
  order by p.table_id, p.n;
  if p_portable then
    return;
  end if;
  return query
  select 'sources', null::text, jsonb_build_object('sources', jsonb_agg(s.id order by s.id))
  from (
    select x.id, row_number() over (order by x.id) as n from gdpr_internal.source as x where x.subject_id = p_subject
  ) as s
  group by (s.n - 1) / p_size
  order by (s.n - 1) / p_size;
  return query
  select 'history', null::text, jsonb_build_object(
    'from', min(h.at), 'from_id', (array_agg(h.id order by h.n))[1], 'to', max(h.at), 'to_id', (array_agg(h.id order by h.n desc))[1]
  )
  from (
    select x.at, x.id, row_number() over (order by x.at, x.id) as n from gdpr_internal.audit_record as x where x.subject_id = p_subject
  ) as h
  group by (h.n - 1) / p_size
  order by (h.n - 1) / p_size;
end
$function$;
comment on function gdpr.access_pages(bigint, boolean, integer) is
  'The pages of an access report (p_portable: of a portable copy), p_size entries each, for gdpr.access_rows(): section rows (with table_name), sources, history. In one transaction at REPEATABLE READ with the pages, else rows that change in between are missed. Recorded in the audit log. Errors: PR101 unknown person, PR004. Art. 15, 20.';

create or replace function gdpr.access_rows(p_subject bigint, p_page jsonb)
returns setof jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_portable boolean := coalesce((p_page ->> 'portable')::boolean, false);
begin
  perform gdpr_internal.note_access(p_subject, case when v_portable then 'portable_copy' else 'access_report' end);
  if p_page ? 'places' then
    return query
    select r.content
    from gdpr_internal.opened_rows(
      p_subject, array[(p_page ->> 'table')::smallint], v_portable, (p_page ->> 'part')::oid, (p_page ->> 'places')::tid[]
    ) as r;
  elsif p_page ? 'sources' then
    return query
    select s from gdpr_internal.opened_sources(p_subject, array(select jsonb_array_elements_text(p_page -> 'sources')::bigint)) as s;
  elsif p_page ? 'to_id' then
    return query
    select h from gdpr_internal.opened_history(
      p_subject, (p_page ->> 'from')::timestamptz, (p_page ->> 'from_id')::bigint, (p_page ->> 'to')::timestamptz, (p_page ->> 'to_id')::bigint
    ) as h;
  else
    perform gdpr_internal.refuse('invalid_argument', 'a page is what gdpr.access_pages() returned');
  end if;
end
$function$;
comment on function gdpr.access_rows(bigint, jsonb) is
  'The entries of one page that gdpr.access_pages() named, as in gdpr.access_report(): rows of a table, sources or history. Whatever the page says, only what belongs to this person. Recorded in the audit log, once for each transaction. Errors: PR101 unknown person, PR004 no such page, PR402 key locked, PR404. Art. 15, 20.';
