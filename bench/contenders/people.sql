-- Generated people, the same for every contender: nothing is random, person N is person N everywhere.
create schema bench;
grant usage on schema bench to public;

create function bench.people(p_from bigint, p_to bigint)
returns table (
  id bigint, first_name text, last_name text, email text, phone text,
  birth_date date, city text, created_at timestamptz
)
language sql
stable
parallel safe
as $$
  select
    i,
    (array['Anna', 'Jürgen', 'Marie', 'Łukasz', 'Chloé', 'Haruto', 'Sofía', 'Olav'])[1 + i % 8],
    (array['Müller', 'Lindqvist', 'García', 'Nowak', 'Lefèvre', 'Sato', 'Rossi'])[1 + i % 7],
    'person.' || i || '@mail.example.org',
    '+4930' || (10000000 + i),
    date '1940-01-01' + (i % 24000)::integer,
    (array['Berlin', 'Kraków', 'Lyon', 'Osaka', 'Sevilla'])[1 + i % 5],
    timestamptz '2020-01-01 00:00+00' + (i % 100000) * interval '20 minutes'
  from generate_series(p_from, p_to) as i
$$;
comment on function bench.people(bigint, bigint) is 'Persons p_from to p_to of the benchmark, made from their number.';
