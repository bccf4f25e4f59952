-- The shop of the documentation: two ordinary tables, made by people who had never heard of gdprdb.

create table customer (
  id          integer generated always as identity primary key,
  name        text not null,
  email       text not null unique,
  phone       varchar(24),
  birth_date  date,
  city        text
);

create table invoice (
  id           integer generated always as identity primary key,
  customer_id  integer not null references customer,
  issued_on    date not null,
  total        numeric(10, 2) not null
);
create index on invoice (customer_id);

insert into customer (name, email, phone, birth_date, city) values
  ('Ada Larsen',    'ada@example.org',   '+45 32 12 34 56', '1988-04-02', 'Aarhus'),
  ('Bruno Weiß',    'bruno@example.org', '+49 30 1234567',  '1975-11-30', 'Berlin'),
  ('Chiyo Tanaka',  'chiyo@example.org', null,              '1993-07-16', 'Osaka');

insert into invoice (customer_id, issued_on, total) values
  (1, '2026-03-01', 120.00), (1, '2026-09-14', 35.50), (2, '2026-10-02', 990.00);

grant usage on schema public to crm_app, mailer;
grant select, insert, update, delete on customer, invoice to crm_app;
grant select on customer to mailer;
