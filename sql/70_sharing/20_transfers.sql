-- [code] Where data may go: the EEA, countries with an adequacy decision, and what a transfer elsewhere rests on.
-- GDPR Art. 44 to 49. Called by: gdpr.record_recipient(), disclosures, the doctor. The operator keeps the list up to date in the policy:
-- decisions are taken, annulled and run out between two releases.

set local role gdpr_owner;

create or replace function gdpr_internal.safeguards()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'adequacy', 'standard_clauses', 'binding_rules', 'code_of_conduct', 'certification', 'public_instrument', 'authorised_clauses', 'derogation'
  ];
end;
comment on function gdpr_internal.safeguards() is
  'What a transfer to a third country can rest on: adequacy (Art. 45, a decision limited in scope that covers the recipient), Art. 46(2) (c) standard_clauses, (b) binding_rules, (e) code_of_conduct, (f) certification, (a) public_instrument, 46(3)(a) authorised_clauses, and derogation (Art. 49).';

create or replace function gdpr_internal.derogations()
returns text[]
language sql
immutable
parallel safe
security invoker
begin atomic
  select array[
    'explicit_consent', 'contract', 'contract_in_interest', 'public_interest', 'legal_claims', 'vital_interests', 'public_register',
    'compelling_interests'
  ];
end;
comment on function gdpr_internal.derogations() is 'The grounds of Art. 49(1), (a) to (g) and its second subparagraph.';

create or replace view gdpr.adequacy as
with shipped (country, scope, valid_from, valid_until, source) as (
  select m.country, null, null::date, null::date, 'EEA'
  from unnest(string_to_array(
    'AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK', ' '
  )) as m (country)
  union all
  values
    ('AD', null, date '2010-10-19', null::date, '2010/625/EU'),
    ('AR', null, date '2003-06-30', null, '2003/490/EC'),
    ('BR', null, date '2026-01-26', null, '(EU) 2026/179'),
    ('CA', 'commercial organisations (PIPEDA)', date '2001-12-20', null, '2002/2/EC'),
    ('CH', null, date '2000-07-26', null, '2000/518/EC'),
    ('FO', null, date '2010-03-05', null, '2010/146/EU'),
    ('GB', null, date '2021-06-28', date '2031-12-27', '(EU) 2021/1772, as extended in December 2025'),
    ('GG', null, date '2003-11-21', null, '2003/821/EC'),
    ('IL', null, date '2011-01-31', null, '2011/61/EU'),
    ('IM', null, date '2004-04-28', null, '2004/411/EC'),
    ('JE', null, date '2008-05-08', null, '2008/393/EC'),
    ('JP', null, date '2019-01-23', null, '(EU) 2019/419'),
    ('KR', null, date '2021-12-17', null, '(EU) 2022/254'),
    ('NZ', null, date '2012-12-19', null, '2013/65/EU'),
    ('US', 'organisations certified under the EU-US Data Privacy Framework', date '2023-07-10', null, '(EU) 2023/1795'),
    ('UY', null, date '2012-08-21', null, '2012/484/EU')
),
own as (
  select e.value ->> 'country' as country, e.value ->> 'scope' as scope, (e.value ->> 'from')::date as valid_from,
    (e.value ->> 'until')::date as valid_until, e.value ->> 'source' as source
  from gdpr_internal.setting as s
  cross join lateral jsonb_array_elements(s.value) as e
  where s.name = 'adequacy'
)
select s.country, s.scope, s.valid_from, s.valid_until, s.source from shipped as s
where not exists (select from own as o where o.country = s.country)
union all
select o.country, o.scope, o.valid_from, o.valid_until, o.source from own as o;
comment on view gdpr.adequacy is
  'Countries where personal data may go without a safeguard: the EEA, and those of an adequacy decision (Art. 45) from its day to its last. scope: it covers only such recipients. State of the list: November 2026; entries of settings.adequacy in the policy replace those of the same country. valid_until in the past ends one.';

create or replace function gdpr_internal.transfer_problem(p_recipient gdpr_internal.recipient_record)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_parent gdpr_internal.recipient_record;
  v_problem text;
begin
  if p_recipient.valid_until <= statement_timestamp() then
    return 'its entry in the register has ended';
  end if;
  if p_recipient.parent_id is not null then
    select r.* into v_parent from gdpr_internal.recipient_record as r
    where r.recipient_id = p_recipient.parent_id order by r.id desc limit 1;
    v_problem := gdpr_internal.transfer_problem(v_parent);
    if v_problem is not null then
      return format('%s, for which it works: %s', v_parent.name, v_problem);
    end if;
  end if;
  if exists (
    select from gdpr.adequacy as a
    where a.country = p_recipient.country and a.scope is null and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
  ) then
    return null;
  end if;
  return case
    when p_recipient.safeguard is null then format('a transfer to %s needs a safeguard', p_recipient.country)
    when p_recipient.safeguard_until <= statement_timestamp() then 'the safeguard of the transfer has ended'
    when p_recipient.safeguard = 'adequacy' and not exists (
      select from gdpr.adequacy as a
      where a.country = p_recipient.country and gdpr_internal.adequate_now(a.valid_from, a.valid_until)
    ) then format('no adequacy decision for %s is in force', p_recipient.country)
  end;
end
$function$;
comment on function gdpr_internal.transfer_problem(gdpr_internal.recipient_record) is
  'Why nothing may be disclosed to a recipient at this statement, or null: it has ended, or its transfer, or that of the processor it works for, rests on nothing. Art. 44.';

create or replace function gdpr_internal.adequate_now(p_from date, p_until date)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select (statement_timestamp() at time zone gdpr_internal.time_zone())::date
    between coalesce(p_from, '-infinity') and coalesce(p_until, 'infinity');
end;
comment on function gdpr_internal.adequate_now(date, date) is 'Whether a decision with these days is in force today, in the time zone of the policy.';
