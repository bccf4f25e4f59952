-- [state] The shape of protected tables: what their columns are called, what they were called, whose change is under way.
-- GDPR Art. 5(2), Art. 25. Written by gdpr.apply(), gdpr.reshape() and gdpr.end_reshape() only.

set local role gdpr_owner;

create table gdpr_internal.known_column (
  table_id smallint not null references gdpr_internal.protected_table on delete cascade,
  position smallint not null,
  column_name name not null,
  hidden boolean not null,
  primary key (table_id, position)
);
comment on table gdpr_internal.known_column is
  'The columns of protected tables, all of them, as apply() or end_reshape() last saw them: by its position a column is found again that has another name now. hidden: came after the table was protected, and no policy has classified it.';

create table gdpr_internal.former_name (
  id bigint generated always as identity primary key,
  table_id smallint not null references gdpr_internal.protected_table,
  position smallint,
  name text not null,
  became text,
  column_id integer,
  original_type text,
  special text,
  withheld boolean not null default false,
  until timestamptz not null,
  recorded_by text not null default session_user
);
create index former_name_of on gdpr_internal.former_name (table_id, name, until);
comment on table gdpr_internal.former_name is
  'What tables (position null) and columns were called until when, and what they became (null: the column was dropped): audit records, holds and ciphertext from before are read by it. column_id, original_type, special: of a dropped column that was classified. withheld: it was about somebody else than the row''s person.';

create table gdpr_internal.reshape (
  table_id smallint primary key references gdpr_internal.protected_table,
  neighbours smallint[] not null,
  drifted boolean not null,
  defaults jsonb not null,
  retyped name[] not null default '{}',
  was jsonb not null default '{}',
  state jsonb,
  closing boolean not null default false
);
comment on table gdpr_internal.reshape is
  'Tables whose controls are off in the transaction that reads this: no transaction can commit a row. neighbours: other tables whose generated code names this one, and whose controls were as apply() left them. drifted: those of the table itself were not. defaults: of its columns, by position, as they were. retyped: columns whose ciphertext and stored masks are written anew at the end. was: by column id the type before gdpr.retype(), and whether values may become others (lossy). state: what tells at the end which columns and rows were written meanwhile.';
