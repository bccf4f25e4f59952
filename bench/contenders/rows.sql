-- Children: every tenth person has a row in each of the four child tables. The staged people are what the bulk insert reads.
insert into purchase (person_id, article, amount) select id, 'Article ' || id % 500, id % 90 + 9.99 from person where id % 10 = 0;
insert into invoice (person_id, billing_address, total) select id, id || ' Main Street, ' || city, id % 90 + 9.99 from person where id % 10 = 0;
insert into ticket (person_id, question) select id, 'Where is my parcel ' || id || '?' from person where id % 10 = 0;
insert into visit (person_id, page) select id, '/articles/' || id % 500 from person where id % 10 = 0;
