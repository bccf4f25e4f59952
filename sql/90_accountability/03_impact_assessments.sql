-- [code] Data protection impact assessments: written by one, approved by another with the officer's advice, reviewed in time.
-- GDPR Art. 35, 36. Called by: gdpr_dpo; read by the record of processing activities and by doctor().

set local role gdpr_owner;

create or replace view gdpr.impact_assessment as
select
  a.id as impact_assessment_id,
  a.name,
  a.version,
  array(select p.name from gdpr_internal.purpose as p where p.id = any (a.purposes) order by p.id) as purposes,
  case
    when d.id is null then 'draft'
    when not d.approved then 'rejected'
    when d.review_at <= statement_timestamp() then 'review_due'
    when exists (
      select from gdpr_internal.impact_assessment_record as n
      cross join lateral (
        select x.approved from gdpr_internal.impact_assessment_decision as x where x.impact_assessment_id = n.id order by x.id desc limit 1
      ) as l
      where n.name = a.name and n.version > a.version and l.approved
    ) then 'superseded'
    else 'in_force'
  end as status,
  a.description,
  a.necessity,
  a.risks,
  a.measures,
  a.views_sought,
  a.author,
  a.recorded_at,
  d.residual_risk,
  d.advice,
  d.consultation,
  d.decided_by as approver,
  d.decided_at,
  d.reason as decision_reason,
  coalesce(d.review_at, a.review_at) as review_at
from gdpr_internal.impact_assessment_record as a
left join lateral (
  select x.* from gdpr_internal.impact_assessment_decision as x where x.impact_assessment_id = a.id order by x.id desc limit 1
) as d on true;
comment on view gdpr.impact_assessment is
  'Data protection impact assessments, all versions. status: draft (nobody has approved it), in_force, review_due (its date has passed), superseded (a later version was approved), rejected. Art. 35.';

create or replace function gdpr.record_impact_assessment(
  p_name text,
  p_purposes text[],
  p_description text,
  p_necessity text,
  p_risks text,
  p_measures text,
  p_review date,
  p_views_sought text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purposes smallint[];
  v_id bigint;
begin
  if '' in (
    coalesce(btrim(p_name), ''), coalesce(btrim(p_description), ''), coalesce(btrim(p_necessity), ''), coalesce(btrim(p_risks), ''),
    coalesce(btrim(p_measures), '')
  ) then
    perform gdpr_internal.refuse('invalid_argument', 'a name, a description, necessity, risks and measures are needed (Art. 35(7))');
  elsif coalesce(cardinality(p_purposes), 0) = 0 or num_nulls(variadic p_purposes) > 0 then
    perform gdpr_internal.refuse('invalid_argument', 'an impact assessment is about one purpose at least');
  elsif p_review is null or not isfinite(p_review) or gdpr.until(p_review) <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'the review is on a day to come');
  end if;
  select array_agg(distinct gdpr_internal.purpose_id(u.purpose)) into v_purposes from unnest(p_purposes) as u (purpose);
  -- one at a time: versions are counted
  perform pg_advisory_xact_lock(hashtextextended('gdpr.impact_assessment', 0));
  insert into gdpr_internal.impact_assessment_record (
    name, version, purposes, description, necessity, risks, measures, views_sought, review_at, actor
  )
  select
    p_name, (select count(*) + 1 from gdpr_internal.impact_assessment_record as a where a.name = p_name), v_purposes, p_description,
    p_necessity, p_risks, p_measures, p_views_sought, gdpr.until(p_review), gdpr_internal.context_setting('actor')
  returning id into v_id;
  perform gdpr_internal.audit_event('IMPACT_ASSESSMENT', null, jsonb_build_object('impact_assessment_id', v_id, 'purposes', p_purposes));
  return v_id;
end
$function$;
comment on function gdpr.record_impact_assessment(text, text[], text, text, text, text, date, text) is
  'Records a data protection impact assessment, a new version of the one of this name: what is done and why (p_description), necessity and proportionality, risks for the persons, measures against them; no personal data. p_review: the last day on which it counts. p_views_sought: what the persons or their representatives said (Art. 35(9)). Returns its number; nobody has approved it yet. Errors: PR003 unknown purpose, PR004 a part is missing. Art. 35(7).';

create or replace function gdpr_internal.decide_impact_assessment(
  p_assessment bigint, p_approved boolean, p_risk text, p_advice text, p_consultation text, p_review date, p_reason text
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_assessment gdpr_internal.impact_assessment_record;
  v_review timestamptz;
begin
  select * into v_assessment from gdpr_internal.impact_assessment_record as a where a.id = p_assessment;
  if v_assessment.id is null then
    perform gdpr_internal.refuse('invalid_argument', 'there is no such impact assessment');
  end if;
  v_review := coalesce(gdpr.until(p_review), v_assessment.review_at);
  if p_approved then
    if v_assessment.author = session_user then
      perform gdpr_internal.refuse('impact_four_eyes');
    elsif p_risk is null or p_risk not in ('low', 'medium', 'high') then
      perform gdpr_internal.refuse('invalid_argument', 'the risk that the measures leave is low, medium or high');
    elsif coalesce(btrim(p_advice), '') = '' then
      perform gdpr_internal.refuse('invalid_argument', 'the advice of the data protection officer is needed (Art. 35(2))');
    elsif p_risk = 'high' and coalesce(btrim(p_consultation), '') = '' then
      perform gdpr_internal.refuse('prior_consultation');
    elsif v_review <= statement_timestamp() or not isfinite(v_review) then
      perform gdpr_internal.refuse('invalid_argument', 'the review is on a day to come');
    end if;
  end if;
  insert into gdpr_internal.impact_assessment_decision (
    impact_assessment_id, approved, residual_risk, advice, consultation, review_at, reason, actor
  )
  values (p_assessment, p_approved, p_risk, p_advice, p_consultation, v_review, p_reason, gdpr_internal.context_setting('actor'));
  perform gdpr_internal.audit_event(
    'IMPACT_ASSESSMENT', null,
    jsonb_strip_nulls(jsonb_build_object('impact_assessment_id', p_assessment, 'approved', p_approved, 'residual_risk', p_risk))
  );
end
$function$;
comment on function gdpr_internal.decide_impact_assessment(bigint, boolean, text, text, text, date, text) is
  'Records a decision about an impact assessment.';

create or replace function gdpr.approve_impact_assessment(
  p_assessment bigint, p_residual_risk text, p_advice text, p_consultation text default null, p_review date default null
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.decide_impact_assessment(p_assessment, true, p_residual_risk, p_advice, p_consultation, p_review, null);
end
$function$;
comment on function gdpr.approve_impact_assessment(bigint, text, text, text, date) is
  'Approves an impact assessment, or renews it until the end of p_review (null: the day its author named). p_residual_risk: low, medium or high, after the measures; where it is high, p_consultation names the case at the supervisory authority, who is asked first. p_advice: of the data protection officer. Whoever wrote it cannot approve it (the login counts). No personal data of those affected in its words. Errors: PR004, PR901 no prior consultation, PR905 four eyes. Art. 35(2), 36.';

create or replace function gdpr.reject_impact_assessment(p_assessment bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(btrim(p_reason), '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.decide_impact_assessment(p_assessment, false, null, null, null, null, p_reason);
end
$function$;
comment on function gdpr.reject_impact_assessment(bigint, text) is
  'Rejects an impact assessment, also one in force. p_reason must hold no personal data. Errors: PR004 unknown assessment or no reason. Art. 35.';

create or replace view gdpr.impact_assessment_due as
select p.name as purpose, r.reasons
from gdpr_internal.purpose as p
cross join lateral (
  select array_remove(array[
    case when p.automated_decision is not null then 'automated_decision' end,
    case when exists (
      select from gdpr_internal.protected_table as t
      join gdpr_internal.protected_column as c on c.table_id = t.id
      where t.unprotected_at is null and t.purpose_mask & (1::bigint << p.id) <> 0 and c.special is not null
    ) then 'special_categories' end,
    case when exists (
      select from gdpr_internal.protected_table as t
      join gdpr_internal.protected_column as c on c.table_id = t.id
      where t.unprotected_at is null and t.purpose_mask & (1::bigint << p.id) <> 0 and c.age
    ) then 'children' end
  ], null) as reasons
) as r
where p.id < 62
  and r.reasons && array['automated_decision', 'special_categories']
  and not exists (select from gdpr.impact_assessment as a where p.name = any (a.purposes) and a.status = 'in_force');
comment on view gdpr.impact_assessment_due is
  'Purposes that call for an impact assessment and have none in force, and why: decisions by machines alone (Art. 35(3)(a)), special categories of data (Art. 35(3)(b)); children whose age the tables know add to it. What else makes a risk high, people judge.';
