-- [code] What functions of the portal share: how much a person may write, ask and read, and the request that each act is.
-- GDPR Art. 12(2), 12(5), Art. 32(1)(b). Called by: the functions of the portal.

set local role gdpr_owner;

create or replace function gdpr_internal.check_details(p_details jsonb)
returns void
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if jsonb_typeof(p_details) <> 'object' or pg_column_size(p_details) > 16384 then
    perform gdpr_internal.refuse('invalid_argument', 'details are {"name": value, ...} of 16 kB at the most');
  end if;
end
$function$;
comment on function gdpr_internal.check_details(jsonb) is 'What a person wrote in the portal: a document, and no novel. Error: PR004.';

create or replace function gdpr_internal.refuse_flood(p_subject bigint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if (select count(*) from gdpr_internal.request_state as r where r.subject_id = p_subject and not r.closed) >= 20 then
    perform gdpr_internal.refuse('too_many_requests', 'twenty requests are open');
  elsif (
    -- what was asked for and withdrawn again counts too: evidence cannot be deleted, and must not grow without end
    select count(*) from gdpr_internal.request as r
    where r.subject_id = p_subject and r.channel = 'portal' and r.recorded_at > statement_timestamp() - interval '1 day'
  ) >= 50 then
    perform gdpr_internal.refuse('too_many_requests', 'fifty requests in a day');
  end if;
end
$function$;
comment on function gdpr_internal.refuse_flood(bigint) is
  'Refuses more requests through the portal than somebody can mean: twenty that are open, fifty in a day. Error: PR616.';

create or replace function gdpr_internal.count_report(p_subject bigint)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_readings integer;
begin
  insert into gdpr_internal.portal_reading as r (subject_id, since, readings)
  values (p_subject, statement_timestamp(), 1)
  on conflict (subject_id) do update
  set since = case when r.since > statement_timestamp() - interval '1 hour' then r.since else excluded.since end,
    readings = case when r.since > statement_timestamp() - interval '1 hour' then r.readings + 1 else 1 end
  returning r.readings into v_readings;
  if v_readings > coalesce((select (s.value ->> 'reports')::integer from gdpr_internal.setting as s where s.name = 'portal'), 60) then
    perform gdpr_internal.refuse('too_often');
  end if;
end
$function$;
comment on function gdpr_internal.count_report(bigint) is
  'Counts a report that a person has through the portal: settings.portal.reports in an hour, 60 unless said. Error: PR618.';

create or replace function gdpr_internal.portal_open(p_subject bigint, p_kind text, p_details jsonb default null, p_at_once boolean default false)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.check_details(p_details);
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if not p_at_once then
    perform gdpr_internal.refuse_flood(p_subject);
  end if;
  return gdpr.open_request(p_kind, p_subject, 'portal', statement_timestamp(), p_details);
end
$function$;
comment on function gdpr_internal.portal_open(bigint, text, jsonb, boolean) is
  'Records what a person asks for in the portal, where the session has proved who it is. p_at_once: it is done now, however many requests are open: whoever fills the list must not keep a person from saying no. Errors: PR004, PR616.';

create or replace function gdpr_internal.portal_answered(p_subject bigint, p_kind text)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform from gdpr_internal.subject as s where s.id = p_subject for no key update;
  if exists (
    select from gdpr_internal.request_state as r
    where r.subject_id = p_subject and r.kind = p_kind and r.channel = 'portal' and r.state = 'completed'
      and gdpr_internal.local_day(r.closed_at) = gdpr_internal.local_day(statement_timestamp())
  ) then
    return null;
  end if;
  return gdpr_internal.portal_open(p_subject, p_kind, null, true);
end
$function$;
comment on function gdpr_internal.portal_answered(bigint, text) is
  'A request for what the portal gives at once; null where the person had the same today: who pages to and fro asks once.';
