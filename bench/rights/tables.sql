-- A person and eight tables of the person's doings, as an application has them.

create table public.person (id bigint primary key, email text, name text, city text);

do $$
begin
  for n in 1 .. 8 loop
    execute format(
      'create table public.doing_%s (id bigint primary key, person_id bigint references public.person, amount numeric, note text)', n
    );
    execute format('create index on public.doing_%s (person_id)', n);
  end loop;
end
$$;
