-- [state] The purposes and bindings that every database has.
-- GDPR Art. 37 to 39 (the data protection officer), Art. 32(4).

set local role gdpr_owner;

insert into gdpr_internal.purpose (id, name, description, basis)
values
  (62, 'compliance', 'Answering persons and authorities, keeping evidence', 'legal_obligation'),
  (63, 'maintenance', 'Migrations and dumps: every row that is not erased, each transaction on record', null);

insert into gdpr_internal.role_binding (role_name, audience, definition)
values ('gdpr_dpo', 'clear', '{}'), ('gdpr_worker', 'clear', '{}');

insert into gdpr_internal.role_purpose (role_name, position, purpose_id)
values ('gdpr_dpo', 100, 62), ('gdpr_worker', 100, 62);
