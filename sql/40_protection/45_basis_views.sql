-- [code] Bases as people look at them: one by one, counted, and what enforcement hides when.
-- GDPR Art. 5(2), 6(1), 30. Read by: gdpr_dpo, gdpr_auditor, gdprdb basis.

set local role gdpr_owner;

create or replace view gdpr.basis as
select
  b.id as basis_id,
  b.subject_id,
  p.name as purpose,
  b.basis,
  b.condition,
  b.reason,
  b.valid_from,
  least(b.valid_until, h.valid_until, e.ended_at) as valid_until,
  e.reason as end_reason,
  coalesce(b.valid_from <= statement_timestamp() and h.valid_until > statement_timestamp(), false) as holds,
  case
    when e.basis_id is not null then 'ended'
    when h.id is null then 'decided'
    when b.valid_until <= statement_timestamp() then 'expired'
    when h.valid_until <= statement_timestamp() then 'review_due'
    when b.valid_from > statement_timestamp() then 'future'
    else 'holds'
  end as status,
  b.assessment_id,
  t.relation as by_table,
  case when pg_has_role(current_user, 'gdpr_dpo', 'usage') then gdpr_internal.open_evidence(b.subject_id, b.evidence)::jsonb end as evidence,
  b.recorded_at,
  b.recorded_by,
  b.actor
from gdpr_internal.basis_record as b
join gdpr_internal.purpose as p on p.id = b.purpose_id
left join gdpr_internal.held_basis as h on h.id = b.id
left join gdpr_internal.basis_end as e on e.basis_id = b.id
left join gdpr_internal.protected_table as t on t.id = b.by_table;
comment on view gdpr.basis is
  'Lawful bases other than consent, per person and purpose, with their history. status: holds, future (not yet valid), ended (before its time), expired, review_due (the assessment of the legitimate interest has to be reviewed first), decided (undetermined until the person gave or refused consent). holds: whether it allows processing at this statement. by_table: recorded by default by that table. evidence: shown to gdpr_dpo, while the person is not erased. Art. 6(1).';

create or replace view gdpr_internal.ground as
select
  h.subject_id,
  h.purpose_id,
  h.basis,
  case when h.valid_until <= statement_timestamp() then 'over' when h.valid_from > statement_timestamp() then 'future' else 'holds' end as status,
  h.valid_from,
  h.valid_until
from gdpr_internal.held_basis as h
union all
select
  c.subject_id,
  c.purpose_id,
  'consent',
  case when c.event <> 'granted' then c.event when c.valid_until <= statement_timestamp() then 'expired' else 'holds' end,
  c.recorded_at,
  case when c.event = 'granted' then c.valid_until else '-infinity' end
from (
  select distinct on (x.subject_id, x.purpose_id) x.subject_id, x.purpose_id, x.event, x.recorded_at, x.valid_until
  from gdpr_internal.consent_record as x
  order by x.subject_id, x.purpose_id, x.id desc
) as c;
comment on view gdpr_internal.ground is 'On what the processing of persons rests, consent among it: from when, until when, and how that stands at this statement.';

create or replace function gdpr_internal.has_condition(p_subject bigint, p_mask bigint)
returns boolean
language sql
stable
parallel restricted
security invoker
begin atomic
  select exists (
    select from gdpr_internal.purpose as p
    -- explicit consent is given by a person, never by a policy
    where p.id < 62 and 1::bigint << p.id & p_mask <> 0 and p.condition <> 'explicit_consent'
  ) or exists (
    select
    from gdpr_internal.held_basis as h
    where h.subject_id = p_subject and 1::bigint << h.purpose_id & p_mask <> 0 and h.condition is not null
      and h.valid_from <= statement_timestamp() and h.valid_until > statement_timestamp()
  ) or exists (
    select
    from gdpr_internal.ground as g
    join gdpr_internal.purpose as p on p.id = g.purpose_id
    where g.subject_id = p_subject and 1::bigint << g.purpose_id & p_mask <> 0 and g.basis = 'consent' and g.status = 'holds'
      and p.condition = 'explicit_consent'
  );
end;
comment on function gdpr_internal.has_condition(bigint, bigint) is
  'Whether a condition of Art. 9(2) holds for a person and one of these purposes (bits): of the purpose, of a basis recorded for the person, or explicit consent.';

create or replace view gdpr_internal.person_purpose as
select
  t.id as table_id,
  t.relation,
  t.mode,
  p.id as purpose_id,
  p.name as purpose,
  x.subject_id
from (
  select distinct o.table_id, o.subject_id from gdpr_internal.source as o
) as x
join gdpr_internal.protected_table as t on t.id = x.table_id and t.unprotected_at is null
join gdpr_internal.purpose as p on p.id < 62 and t.purpose_mask & (1::bigint << p.id) <> 0
join gdpr_internal.subject as s on s.id = x.subject_id and s.erased_at is null;
comment on view gdpr_internal.person_purpose is 'Persons of whom a protected table collected rows, with each purpose that the table may be used for.';

create or replace view gdpr.basis_overview as
select
  x.relation as table_name,
  x.mode,
  x.purpose,
  coalesce(g.basis, 'none') as basis,
  coalesce(g.status, 'none') as status,
  count(distinct x.subject_id) as persons,
  nullif(min(g.valid_until) filter (where g.status = 'holds'), 'infinity') as first_end
from gdpr_internal.person_purpose as x
left join gdpr_internal.ground as g on g.subject_id = x.subject_id and g.purpose_id = x.purpose_id
group by x.relation, x.mode, x.purpose, coalesce(g.basis, 'none'), coalesce(g.status, 'none');
comment on view gdpr.basis_overview is
  'How many persons of each protected table have which basis for which purpose, and how it stands: holds, future, over, or of a consent granted (holds), declined, withdrawn, expired; none: no basis at all. first_end: when the first of those that hold ends (null: none of them does). A person with several bases counts in each. Art. 5(2), 6(1).';

create or replace view gdpr.would_lock as
select
  w.relation as table_name,
  w.mode,
  w.purpose,
  w.cause,
  w.locks_at,
  count(*) as persons
from (
  select
    x.relation, x.mode, x.purpose,
    case
      when r.subject_id is not null then 'restricted'
      when o.subject_id is not null then 'objected'
      when i.begins is null or i.begins > statement_timestamp() then 'no_basis'
      else 'basis_ends'
    end as cause,
    case
      when r.subject_id is null and o.subject_id is null and i.begins <= statement_timestamp() then i.ends
      else statement_timestamp()
    end as locks_at
  from gdpr_internal.person_purpose as x
  left join (
    -- unbroken from now on: a later basis counts where it begins before the earlier ones end
    select
      u.subject_id, u.purpose_id, min(u.valid_from) as begins,
      coalesce(min(u.so_far) filter (where u.valid_from > u.so_far), max(u.valid_until)) as ends
    from (
      select
        g.subject_id, g.purpose_id, g.valid_from, g.valid_until,
        max(g.valid_until) over (
          partition by g.subject_id, g.purpose_id order by g.valid_from rows between unbounded preceding and 1 preceding
        ) as so_far
      from gdpr_internal.ground as g
      where g.valid_until > statement_timestamp()
    ) as u
    group by u.subject_id, u.purpose_id
  ) as i on i.subject_id = x.subject_id and i.purpose_id = x.purpose_id
  left join (
    select distinct y.subject_id from gdpr_internal.restriction_record as y
    where not exists (select from gdpr_internal.restriction_end as e where e.restriction_id = y.id)
  ) as r on r.subject_id = x.subject_id and not exists (
    select from gdpr_internal.standing_exception as e where e.subject_id = x.subject_id and e.purpose_id = x.purpose_id
  )
  left join gdpr_internal.standing_objection as o on o.subject_id = x.subject_id and o.purpose_id = x.purpose_id
) as w
where w.locks_at < 'infinity'
group by w.relation, w.mode, w.purpose, w.cause, w.locks_at;
comment on view gdpr.would_lock is
  'What enforcement hides (mode observe: would hide), how many persons, from when on, if nothing more is recorded. cause: no_basis, restricted, objected (locked at this statement); basis_ends (locked at locks_at). Art. 5(1)(a), 6(1).';
