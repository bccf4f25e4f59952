-- What people build by hand: pgp_sym_encrypt behind a writable view, a generic jsonb audit trigger, and a row-security
-- policy that asks a consent table. Done with care (only changed columns are encrypted again, the look-up has an index),
-- because a straw man would prove nothing. The key comes from a session setting, as it mostly does.
create extension pgcrypto;

-- Consent, asked by the policy for every row.
create table consent (
  person_id bigint not null references person (id) on delete cascade,
  purpose text not null,
  granted boolean not null,
  valid_until timestamptz,
  primary key (person_id, purpose)
);
insert into consent (person_id, purpose, granted) select id, 'orders', true from person;

-- Encryption with default options; the digest of the e-mail address makes it searchable.
alter table person add column email_digest text;
update person set email_digest = encode(digest(lower(email), 'sha256'), 'hex');
alter table person
  drop constraint person_email_key,
  alter column email type bytea using pgp_sym_encrypt(email, current_setting('app.key')),
  alter column phone type bytea using pgp_sym_encrypt(phone, current_setting('app.key')),
  alter column email_digest set not null,
  add constraint person_email_digest_key unique (email_digest);

create schema clear;
create view clear.person with (security_invoker = true) as
select
  id, first_name, last_name,
  pgp_sym_decrypt(email, current_setting('app.key')) as email,
  pgp_sym_decrypt(phone, current_setting('app.key')) as phone,
  birth_date, city, created_at, email_digest
from person;
alter view clear.person alter column created_at set default now();

create function clear.write_person() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into public.person (first_name, last_name, email, phone, birth_date, city, created_at, email_digest)
    values (
      new.first_name, new.last_name,
      pgp_sym_encrypt(new.email, current_setting('app.key')),
      pgp_sym_encrypt(new.phone, current_setting('app.key')),
      new.birth_date, new.city, new.created_at,
      encode(digest(lower(new.email), 'sha256'), 'hex')
    );
    return new;
  end if;
  update public.person set
    first_name = new.first_name, last_name = new.last_name,
    email = case when new.email is distinct from old.email
      then pgp_sym_encrypt(new.email, current_setting('app.key')) else email end,
    phone = case when new.phone is distinct from old.phone
      then pgp_sym_encrypt(new.phone, current_setting('app.key')) else phone end,
    birth_date = new.birth_date, city = new.city, created_at = new.created_at,
    email_digest = case when new.email is distinct from old.email
      then encode(digest(lower(new.email), 'sha256'), 'hex') else email_digest end
  where id = old.id;
  return new;
end
$$;
create trigger write_person instead of insert or update on clear.person
for each row execute function clear.write_person();

-- The redacted view must decrypt to mask, for the ciphertext is all there is; OFFSET 0 makes it do so once per row.
create schema bi;
create view bi.person with (security_invoker = true) as
select
  id,
  left(first_name, 1) || '.' as first_name,
  left(last_name, 1) || '.' as last_name,
  left(email, 1) || '***' || case
    when strpos(split_part(email, '@', -1), '.') > 0 and strpos(email, '@') > 0
      then '@***.' || split_part(email, '.', -1)
    else ''
  end as email,
  null::text as phone,
  date_trunc('year', birth_date::timestamp)::date as birth_date,
  city,
  created_at
from (select * from clear.person offset 0) as p;

-- The gate: no consent, no row.
alter table person enable row level security;
create policy write_person on person for insert to crm_app with check (true);
create policy consented_person on person for all to crm_app, metabase
using (
  exists (
    select from consent as c
    where c.person_id = person.id and c.purpose = 'orders' and c.granted
      and (c.valid_until is null or c.valid_until > now())
  )
);

-- The audit: audit.sql.
create trigger audit after insert or update or delete on person for each row execute function audit.record_change();
create trigger audit after insert or update or delete on purchase for each row execute function audit.record_change();
create trigger audit after insert or update or delete on invoice for each row execute function audit.record_change();
create trigger audit after insert or update or delete on ticket for each row execute function audit.record_change();
create trigger audit after insert or update or delete on visit for each row execute function audit.record_change();
create trigger audit after insert or update or delete on consent for each row execute function audit.record_change();

grant usage on schema clear to crm_app, metabase;
grant usage on schema bi to metabase;
grant select, insert, update, delete on clear.person to crm_app;
grant select on clear.person to metabase;
grant select on bi.person to metabase;
grant select on person, consent to metabase;
grant select on consent to crm_app;
