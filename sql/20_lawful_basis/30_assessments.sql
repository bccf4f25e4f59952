-- [code] Assessing legitimate interests: written by one, approved by another, reviewed in time.
-- GDPR Art. 6(1)(f). Called by: gdpr_dpo, and roles to which the policy gives may = ["basis"].

set local role gdpr_owner;

create or replace view gdpr.assessment as
select
  a.id as assessment_id,
  p.name as purpose,
  a.version,
  case
    when d.id is null then 'draft'
    when not d.approved then 'rejected'
    when d.review_at <= statement_timestamp() then 'review_due'
    when exists (
      select from gdpr_internal.assessment as n
      cross join lateral (
        select x.approved, x.review_at from gdpr_internal.assessment_decision as x where x.assessment_id = n.id order by x.id desc limit 1
      ) as l
      where n.purpose_id = a.purpose_id and n.version > a.version and l.approved
    ) then 'superseded'
    else 'in_force'
  end as status,
  a.interest,
  a.necessity,
  a.balancing,
  a.author,
  a.recorded_at,
  d.decided_by as approver,
  d.decided_at,
  d.reason as decision_reason,
  coalesce(d.review_at, a.review_at) as review_at
from gdpr_internal.assessment as a
join gdpr_internal.purpose as p on p.id = a.purpose_id
left join lateral (
  select x.* from gdpr_internal.assessment_decision as x where x.assessment_id = a.id order by x.id desc limit 1
) as d on true;
comment on view gdpr.assessment is
  'Assessments of legitimate interests, all versions. status: draft (nobody has approved it), in_force, review_due (its date has passed: bases that rest on it do not hold), superseded (a later version was approved), rejected. Art. 6(1)(f).';

create or replace function gdpr_internal.assessment_in_force(p_purpose smallint)
returns bigint
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select a.assessment_id
  from gdpr.assessment as a
  join gdpr_internal.purpose as p on p.name = a.purpose
  where p.id = p_purpose and p.assessed_until > statement_timestamp() and a.status = 'in_force';
end;
comment on function gdpr_internal.assessment_in_force(smallint) is 'The assessment that carries the legitimate interests of a purpose now, or null.';

create or replace function gdpr.record_assessment(
  p_purpose text,
  p_interest text,
  p_necessity text,
  p_balancing text,
  p_review date
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_purpose smallint := gdpr_internal.purpose_id(p_purpose);
  v_id bigint;
begin
  if v_purpose >= 62 then
    perform gdpr_internal.refuse('built_in_purpose');
  elsif '' in (coalesce(p_interest, ''), coalesce(p_necessity, ''), coalesce(p_balancing, '')) then
    perform gdpr_internal.refuse('invalid_argument', 'interest, necessity and balancing are needed');
  elsif p_review is null or not isfinite(p_review) or gdpr.until(p_review) <= statement_timestamp() then
    perform gdpr_internal.refuse('invalid_argument', 'the review is on a day to come');
  end if;
  -- one at a time: versions are counted
  perform from gdpr_internal.purpose as p where p.id = v_purpose for update;
  insert into gdpr_internal.assessment (purpose_id, version, interest, necessity, balancing, review_at, actor)
  select
    v_purpose, (select count(*) + 1 from gdpr_internal.assessment as a where a.purpose_id = v_purpose),
    p_interest, p_necessity, p_balancing, gdpr.until(p_review), gdpr_internal.context_setting('actor')
  returning id into v_id;
  perform gdpr_internal.audit_event('ASSESSMENT', null, jsonb_build_object('assessment_id', v_id, 'purpose', p_purpose));
  return v_id;
end
$function$;
comment on function gdpr.record_assessment(text, text, text, text, date) is
  'Records an assessment of legitimate interests for a purpose, a new version each time: the interest pursued, why the processing is necessary for it, and how it weighs against the persons'' rights; no personal data. p_review: the last day on which it counts. Nothing rests on it until somebody else approves it. Returns its number. Errors: PR003 unknown purpose, PR004 a part is missing. Art. 6(1)(f).';

create or replace function gdpr_internal.decide_assessment(p_assessment bigint, p_approved boolean, p_reason text, p_review date)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_assessment gdpr_internal.assessment;
  v_review timestamptz;
  v_until timestamptz;
begin
  perform gdpr_internal.require_read_committed();
  select * into v_assessment from gdpr_internal.assessment as a where a.id = p_assessment;
  if v_assessment.id is null then
    perform gdpr_internal.refuse('invalid_argument', 'there is no such assessment');
  end if;
  v_review := coalesce(gdpr.until(p_review), v_assessment.review_at);
  if p_approved and v_assessment.author = session_user then
    perform gdpr_internal.refuse('four_eyes');
  elsif p_approved and (v_review <= statement_timestamp() or not isfinite(v_review)) then
    perform gdpr_internal.refuse('invalid_argument', 'the review is on a day to come');
  end if;
  perform from gdpr_internal.purpose as p where p.id = v_assessment.purpose_id for update;
  insert into gdpr_internal.assessment_decision (assessment_id, approved, review_at, reason, actor)
  values (p_assessment, p_approved, v_review, p_reason, gdpr_internal.context_setting('actor'));
  select d.review_at into v_until
  from gdpr_internal.assessment as a
  cross join lateral (
    select x.approved, x.review_at from gdpr_internal.assessment_decision as x where x.assessment_id = a.id order by x.id desc limit 1
  ) as d
  where a.purpose_id = v_assessment.purpose_id and d.approved
  order by a.version desc
  limit 1;
  update gdpr_internal.purpose as p set assessed_until = coalesce(v_until, '-infinity') where p.id = v_assessment.purpose_id;
  perform gdpr_internal.follow_assessment(v_assessment.purpose_id);
  perform gdpr_internal.audit_event('ASSESSMENT', null, jsonb_build_object('assessment_id', p_assessment, 'approved', p_approved));
end
$function$;
comment on function gdpr_internal.decide_assessment(bigint, boolean, text, date) is
  'Records a decision about an assessment and spreads it to all who rest on the purpose''s legitimate interests.';

create or replace function gdpr.approve_assessment(p_assessment bigint, p_review date default null, p_reason text default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform gdpr_internal.decide_assessment(p_assessment, true, p_reason, p_review);
end
$function$;
comment on function gdpr.approve_assessment(bigint, date, text) is
  'Approves an assessment, or renews it: from now until the end of p_review (null: the day its author named) the purpose may rest on legitimate interests, and with that instant no longer, unless renewed. The latest approved version is the one in force. Whoever wrote it cannot approve it (the login counts). p_reason must hold no personal data. Errors: PR004 unknown assessment or a day that has passed, PR206 four eyes, PR005 not at READ COMMITTED. Art. 6(1)(f).';

create or replace function gdpr.reject_assessment(p_assessment bigint, p_reason text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if coalesce(p_reason, '') = '' then
    perform gdpr_internal.refuse('invalid_argument', 'a reason is needed');
  end if;
  perform gdpr_internal.decide_assessment(p_assessment, false, p_reason, null);
end
$function$;
comment on function gdpr.reject_assessment(bigint, text) is
  'Rejects an assessment, also one in force: with this statement nothing rests on it any more (an earlier version that is still approved takes over). p_reason must hold no personal data. Errors: PR004 unknown assessment or no reason, PR005 not at READ COMMITTED. Art. 6(1)(f).';
