-- Fills the tables and the registers under an applied policy as inserts by the application would, set by set and not row by
-- row: as superuser, triggers off. What was filled is checked afterwards through the clear view and by gdpr.doctor().
-- Every tenth person has a row in each of the nine tables. Parameter: bench.people.

create unlogged table public.made as
select n as id, n % 10 = 0 as busy, gdpr_internal.gen_random_bytes(64) as key, gdpr_internal.gen_random_bytes(16) as iv,
  'p' || n || '@example.com' as email
from generate_series(1, current_setting('bench.people')::bigint) as n;

insert into gdpr_internal.subject (id, ref, purposes, until)
select m.id, gen_random_uuid(), 1 | (1::bigint << 62), 'infinity' from public.made as m;

insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
select m.id, r.kek_id, b.body || gdpr_internal.hmac(int8send(m.id) || b.body, substr(r.kek, 33), 'sha256')
from public.made as m
cross join (select (gdpr_internal.keyring()).*) as r
cross join lateral (select m.iv || gdpr_internal.encrypt_iv(m.key, substr(r.kek, 1, 32), m.iv, 'aes-cbc/pad:none') as body) as b;

insert into gdpr_internal.identifier (digest, kind, subject_id)
select gdpr_internal.keyed_digest(r.digest_key, 'email', m.email), 'email', m.id
from public.made as m cross join (select (gdpr_internal.keyring()).*) as r;

insert into gdpr_internal.basis_record (subject_id, purpose_id, basis, reason, by_table)
select m.id, b.purpose_id, b.basis, b.reason, b.table_id
from public.made as m cross join gdpr_internal.default_basis as b
where b.table_id = (select t.id from gdpr_internal.protected_table as t where t.relation = 'public.person'::regclass);

insert into gdpr_internal.source (subject_id, table_id, row_key, kind)
select m.id, t.id, gdpr_internal.keyed_digest(r.digest_key, 'row ' || t.id, m.id::text), 'unspecified'
from public.made as m
cross join gdpr_internal.protected_table as t
cross join (select (gdpr_internal.keyring()).*) as r
where m.busy or t.relation = 'public.person'::regclass;

insert into gdpr_internal.audit_record (operation, table_id, subject_id, row_key, role, row_hash)
select 'INSERT', t.id, m.id, gen_random_uuid(), 'crm_app', sha256(int8send(m.id))
from public.made as m
cross join gdpr_internal.protected_table as t
where m.busy or t.relation = 'public.person'::regclass;

do $$
declare
  v_table record;
  v_back text;
  v_values text;
begin
  for v_table in select t.id, t.relation, t.relation = 'public.person'::regclass as root from gdpr_internal.protected_table as t order by t.depth, t.id loop
    select string_agg(format('alter table %s enable %s trigger %I', v_table.relation, case g.tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, g.tgname), '; ')
    into v_back
    from pg_trigger as g where g.tgrelid = v_table.relation and not g.tgisinternal;
    execute format('alter table %s disable trigger user', v_table.relation);
    v_values := case
      when v_table.root then format(
        'insert into public.person (id, email, name, city, gdpr_subject_id, gdpr_subject_ref, gdpr_purposes, gdpr_until, gdpr_email_digest) '
        'select m.id, gdpr_internal.seal_value(m.key, m.iv, m.id, %s, m.email), gdpr_internal.seal_value(m.key, m.iv, m.id, %s, ''Name''), ''Ulm'', '
        's.id, s.ref, s.purposes, s.until, i.digest '
        'from public.made as m join gdpr_internal.subject as s on s.id = m.id join gdpr_internal.identifier as i on i.subject_id = m.id',
        (select c.id from gdpr_internal.protected_column as c where c.table_id = v_table.id and c.column_name = 'email'),
        (select c.id from gdpr_internal.protected_column as c where c.table_id = v_table.id and c.column_name = 'name')
      )
      else format(
        'insert into %s (id, person_id, amount, note, gdpr_subject_id, gdpr_subject_ref, gdpr_purposes, gdpr_until) '
        'select m.id, m.id, 10, ''a note'', s.id, s.ref, s.purposes, s.until '
        'from public.made as m join gdpr_internal.subject as s on s.id = m.id where m.busy', v_table.relation
      )
    end;
    execute v_values;
    execute v_back;
  end loop;
end
$$;

select setval('gdpr_internal.subject_id_seq', (select max(id) from public.made));
drop table public.made;
