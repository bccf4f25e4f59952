-- Fills person and what reading it touches under an applied policy as inserts by the application would, set by set: as
-- superuser, triggers off. Evidence, sources and audit stay empty: no read looks there. Parameter: bench.people.

create unlogged table public.made as
select p.*, gen_random_uuid() as ref, gdpr_internal.gen_random_bytes(64) as key,
  gdpr_internal.gen_random_bytes(16) as iv, gdpr_internal.gen_random_bytes(16) as iv_of_phone
from bench.people(1, current_setting('bench.people')::bigint) as p;

create temporary table gate as
select bit_or(1::bigint << p.id) as purposes from gdpr_internal.purpose as p where p.name = 'orders' or p.id = 62;

insert into gdpr_internal.subject (id, ref, purposes, until)
select m.id, m.ref, g.purposes, 'infinity' from public.made as m cross join gate as g;

insert into gdpr_internal.subject_key (subject_id, kek_id, wrapped)
select m.id, r.kek_id, gdpr_internal.wrap_key(r.kek, m.iv, int8send(m.id), m.key)
from public.made as m
cross join (select (k).* from (select gdpr_internal.keyring() as k offset 0) as k) as r;

insert into gdpr_internal.identifier (digest, kind, subject_id)
select gdpr_internal.keyed_digest(r.digest_key, 'email', m.email), 'email', m.id
from public.made as m
cross join (select (k).* from (select gdpr_internal.keyring() as k offset 0) as k) as r;

alter table public.person disable trigger user;
do $$
declare
  v_email integer := (select c.id from gdpr_internal.protected_column as c where c.column_name = 'email');
  v_phone integer := (select c.id from gdpr_internal.protected_column as c where c.column_name = 'phone');
begin
  insert into public.person (
    id, first_name, last_name, email, phone, birth_date, city, created_at,
    gdpr_subject_id, gdpr_subject_ref, gdpr_purposes, gdpr_until, gdpr_email_digest
  )
  select
    m.id, m.first_name, m.last_name, gdpr_internal.seal_value(m.key, m.iv, m.id, v_email, m.email),
    gdpr_internal.seal_value(m.key, m.iv_of_phone, m.id, v_phone, m.phone), m.birth_date, m.city, m.created_at,
    m.id, m.ref, g.purposes, 'infinity', gdpr_internal.keyed_digest(r.digest_key, 'email', m.email)
  from public.made as m
  cross join gate as g
  cross join (select (k).* from (select gdpr_internal.keyring() as k offset 0) as k) as r;
end
$$;
do $$
declare
  v_trigger name;
begin
  for v_trigger in select g.tgname from pg_trigger as g where g.tgrelid = 'public.person'::regclass and not g.tgisinternal loop
    execute format('alter table public.person enable always trigger %I', v_trigger);
  end loop;
end
$$;

select setval('gdpr_internal.subject_id_seq', (select max(m.id) from public.made as m));
drop table public.made;
