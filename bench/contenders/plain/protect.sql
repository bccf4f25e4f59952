-- The plain contender protects nothing. Its redacted view has gdprdb's masks, written straight over the table.
create schema bi;
create view bi.person as
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
from person;
grant usage on schema bi to metabase;
grant select on bi.person to metabase;
