-- [code] Findings about recipients and about notices that they did not get.
-- GDPR Art. 19, 44, 5(2). Called by: gdpr.doctor().

set local role gdpr_owner;

create or replace function gdpr_internal.doctor_sharing()
returns table (severity text, topic text, object text, finding text, hint text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select 'warning', 'transfer', r.name, format('nothing may be disclosed to it any more: %s', r.problem),
    'gdpr.record_recipient() with a safeguard or a longer term, or with p_valid_until = now() once nothing is disclosed to it.'
  from gdpr.recipient as r
  -- an entry that was ended on purpose is no finding, unless somebody still is bound to it
  where r.problem is not null and (
    r.valid_until > statement_timestamp()
    or exists (select from gdpr_internal.role_binding as b where b.recipient = r.name)
  )
  union all
  select 'warning', 'transfer', r.name, format('nothing may be disclosed to it from %s on', to_char(e.ends, 'YYYY-MM-DD')),
    'gdpr.record_recipient() with a longer term, or a safeguard for the time after.'
  from gdpr.recipient as r
  cross join lateral (
    select least(r.valid_until, case when r.transfer = r.safeguard then r.safeguard_until end, (
      select min(a.valid_until)::timestamptz from gdpr.adequacy as a
      where a.country = r.country and r.transfer = 'adequacy' and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
    )) as ends
  ) as e
  where r.problem is null and e.ends < statement_timestamp() + interval '30 days'
  union all
  select 'warning', 'recipient', b.role_name::text, format('the policy binds the role to recipient %s, which is not registered', b.recipient),
    'gdpr.record_recipient(), or another name in the policy; until then the role reads nothing.'
  from gdpr_internal.role_binding as b
  where b.recipient is not null and not exists (select from gdpr_internal.recipient_now as r where r.name = b.recipient)
  union all
  select 'info', 'recipient', b.role_name::text, format('what a role of audience %s reads in views is not recorded: it is bound to no recipient', b.audience),
    'Say recipient in the policy where the data leave the organisation.'
  from gdpr_internal.role_binding as b
  where b.audience = any (gdpr_internal.outgoing_audiences()) and b.recipient is null
  union all
  select 'warning', 'notices', d.recipient, format('notices due for more than 7 days: %s', count(*)),
    'gdprdb share notices --due lists them; gdpr.open_notice() says what to tell.'
  from gdpr.notice_due as d
  where d.queued_at < statement_timestamp() - interval '7 days'
  group by d.recipient;
end;
comment on function gdpr_internal.doctor_sharing() is 'Findings about recipients whose transfers rest on nothing, or soon will, and about notices that are due.';
