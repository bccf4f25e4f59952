-- [code] What names of columns and tables say about persons, in nine languages.
-- GDPR Art. 4(1), 9(1). Called by: gdpr.discover(). Words, not statements: what a column holds, its values confirm or deny.

set local role gdpr_owner;

create or replace function gdpr_policy.name_words(p_name text)
returns text
language sql
immutable
strict
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
  -- customerEMail2 -> _customer_e_mail_; letters outside of ASCII that European languages write in two ways, in one
  select '_' || btrim(regexp_replace(regexp_replace(
    replace(replace(replace(replace(replace(replace(replace(translate(
      lower(regexp_replace(regexp_replace(p_name, '([a-z0-9])([A-Z])', '\1_\2', 'g'), '([A-Z])([A-Z][a-z])', '\1_\2', 'g')),
      'àáâãåçèéêëìíîïñòóôõùúûýÿąćęłńśźżÀÁÂÃÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÙÚÛÝĄĆĘŁŃŚŹŻ',
      'aaaaaceeeeiiiinoooouuuyyacelnszzaaaaaceeeeiiiinoooouuuyacelnszz'
    ), 'ß', 'ss'), 'ä', 'ae'), 'ö', 'oe'), 'ü', 'ue'), 'Ä', 'ae'), 'Ö', 'oe'), 'Ü', 'ue'),
    '[\s!-/:-@\[-`{-~]+', '_', 'g'
  ), '([a-z])[0-9]+(_|$)', '\1\2', 'g'), '_') || '_';
end;
comment on function gdpr_policy.name_words(text) is
  'A name as lower-case words between underscores: camel case parted, accents and digits at the end gone.';

create or replace function gdpr_policy.discovery_words()
returns table (rank integer, kind text, types text, words text, veto text)
language sql
immutable
parallel safe
security invoker
begin atomic
  -- types: t text, d dates, n numbers, i addresses of the net, b booleans, y bytes, j documents
  values
  (1, 'credential', 'ty', '^_tokens?_$|_(passwords?|passwd|pwd|pass_?(word|phrase|hash)|(hash(ed)?|encrypted)_pass(word)?|passwort|kennwort|mot_de_passe|motdepasse|mdp|contrasena|clave_acceso|wachtwoord|palavra_passe|senha|haslo|parola_chiave|salt|secret|client_secret|api_?key|(access|refresh|auth|reset|remember|session|api|bearer|confirmation|activation)_token|token_hash|private_key|otp_secret|totp_secret|security_answer|pin_?code|pass_?waado)_|パスワード|暗証番号|密码', '_(policy|hint|type|length|url|name)_'),
  (2, 'sexual_orientation', 'tnbj', '_(sexual_orientation|sexuelle_orientierung|orientation_sexuelle|orientacion_sexual|orientamento_sessuale|seksuele_geaardheid|seksuele_voorkeur|orientacao_sexual|orientacja_seksualna|seiteki_shikou?)_|性的指向', null),
  (2, 'sex_life', 'tnbj', '_(sex_?life|sexual_(life|partners?|history|behaviou?r)|sexualleben|vie_sexuelle|vida_sexual|vita_sessuale|seksleven|zycie_seksualne)_|性生活', null),
  (2, 'trade_union_membership', 'tnbjd', '_(trade_?unions?|labou?r_union|union_(member(ship)?|dues|no|number|id)|gewerkschaft(en|lich)?|gewerkschaftsmitglied(schaft)?|syndicat|syndicale?|affiliation_syndicale|afiliacion_sindical|sindicato|sindacato|iscrizione_sindacale|vakbond(slidmaatschap)?|filiacao_sindical|zwiazek_zawodowy|zwiazki_zawodowe|roudou?_?kumiai|rodo_?kumiai)_|労働組合', null),
  (2, 'religious_or_philosophical_belief', 'tnbj', '_(religions?|religious(_(belief|affiliation))?|faith|denomination|confession|konfession|konfessionszugehoerigkeit|kirchensteuer(merkmal)?|kirchenzugehoerigkeit|glaube|religionszugehoerigkeit|croyances?|culte|confesion|religione|credo_religioso|confessione|geloof(sovertuiging)?|godsdienst|religiao|wyznanie|religia|shuukyou|shukyo|shuukyo)_|宗教|信仰', null),
  (2, 'racial_or_ethnic_origin', 'tnbj', '_(ethnic(ity|_origin|_group)?|race|racial_origin|skin_colou?r|ethnie|ethnische?(_(herkunft|zugehoerigkeit))?|rasse|herkunftsethnie|origine_ethnique|origen_etnico|etnia|etnicidad|raza|origine_etnica|razza|etniciteit|etnische_afkomst|origem_etnica|raca|pochodzenie_etniczne|rasa|jinshu|minzoku)_|人種|民族', '_(condition|track|result|time)_'),
  (2, 'political_opinion', 'tnbj', '_(politic(s|al)(_(opinion|view|affiliation|party)s?)?|party_membership|parteizugehoerigkeit|parteimitglied(schaft)?|politische_(meinung|einstellung|gesinnung)|opinions?_politiques?|parti_politique|opinion_politica|afiliacion_politica|partido_politico|opinione_politica|partito(_politico)?|politieke_(voorkeur|gezindheid|partij)|opiniao_politica|poglady_polityczne|partia_polityczna|seiji_shinjou)_|政治', null),
  (2, 'genetic', 'tnbjy', '_(genetic(s|_(data|test|profile))?|genome|genotype|dna(_(profile|sample|test))?|genetisch\w*|genetik|genetique|genetic[oa]|donnees_genetiques|genetyczn[aey]|idenshi)_|遺伝', null),
  (2, 'biometric', 'tnbjy', '_(biometr(ic|ics|y)(_\w+)?|finger_?prints?(_template)?|iris_scan|retina(_scan)?|voice_?print|face_?(template|id|embedding|encoding|print)|fingerabdr(uck|uecke)|gesichtserkennung|biometrisch\w*|empreintes?_digitales?|biometrique|huellas?_(dactilar(es)?|digital(es)?)|biometric[oa]|impront[ae]_digital[ei]|vingerafdruk(ken)?|biometrisch|impress(ao|oes)_digita(l|is)|odcisk(i)?_palc(a|ow)|biometryczn[aey]|shimon)_|指紋|生体|顔認証', '_(key|cert(ificate)?|ssh|gpg|sha|file|browser|device)_'),
  (2, 'health', 'tnbjd', '_(health(_(status|condition|data|record|notes?|insurance_no))?|medical(_\w+)?|diagnos(is|es|e|en|tic|tico|tica|i)|disease|illness|sickness|sick_(leave|days?|note)|symptoms?|disabilit(y|ies)|disabled_person|handicap(ped)?|medications?|prescriptions?|treatment|therapy|allerg(y|ies|ie|ien|ia|ias|ique|eni)|blood_(type|group|pressure|sugar)|pregnan(t|cy)|vaccin(e|es|ation|ated|ations)|icd_?(9|10|11)?|hiv(_status)?|bmi|body_weight|gesundheit\w*|krankheit(en)?|krankmeldung(en)?|krankheitstage|krank|befund|behinderung(en)?|schwerbehindert|schwerbehinderung|schwanger(schaft)?|blutgruppe|medikament(e|ation)?|impf(ung|status|ungen)|therapie|sante|maladies?|etat_de_sante|handicape|enceinte|groupe_sanguin|medicaments?|vaccinations?|arret_maladie|salud|enfermedad(es)?|discapacidad|embarazo|grupo_sanguineo|medicacion|medicamentos?|vacunas?|baja_medica|salute|malatti[ae]|disabilita|gravidanza|gruppo_sanguigno|farmac[oi]|stato_di_salute|gezondheid\w*|ziektes?|ziekte(verzuim|melding)|beperking|zwanger(schap)?|bloedgroep|medicatie|medicijn(en)?|handicap|saude|doencas?|deficiencia|gravidez|grupo_sanguineo|medicacao|zdrowie|stan_zdrowia|chorob[ay]|niepelnospraw\w*|ciaza|grupa_krwi|leki|byouki|byoki|kenkou?|shougai|shindan|ketsuekigata|ninshin)_|健康|病歴|病気|障害|診断|血液型|妊娠|服薬', '_(check|score|probe|endpoint|url|service|server|system|bar)_'),
  (3, 'national_id', 'tn', '_(ssn|social_security(_(no|number|nr))?|nin|nino|national_(id|identity|insurance)(_(no|number|nr|card))?|identity_(card|number|document)(_(no|number))?|id_card(_(no|number))?|personal_(id|identity)_(no|number)|tax_?(id|no|number|identification)(_(no|number))?|tin|passport(_(no|number|nr|id))?|driv(ing|er|ers)_?licen[cs]e(_(no|number))?|steuer_?id(nr|entifikationsnummer)?|steuer_?nummer|steuer_?nr|identifikationsnummer|sozialversicherungs_?(nummer|nr)|sv_?(nummer|nr)|rentenversicherungsnummer|personalausweis(_?(nummer|nr))?|ausweis_?(nummer|nr)|pass_?(nummer|nr)|reisepass(_?(nummer|nr))?|fuehrerschein(_?(nummer|nr))?|numero_(de_)?securite_sociale|num_?secu|insee|nir|numero_fiscal|numero_passeport|carte_identite|permis_conduire|dni|nie|nif|numero_seguridad_social|pasaporte|cedula|codice_fiscale|cod_?fisc|carta_identita|passaporto|patente(_guida)?|bsn|burger_?service_?nummer|sofi_?nummer|paspoort(_?nummer)?|rijbewijs(_?nummer)?|cpf|numero_contribuinte|cartao_cidadao|passaporte|pesel|numer_dowodu|dowod_osobisty|paszport|my_?number|kojin_?bangou?|personnummer|cpr(_?nr|_?nummer)?|kennitala|fodselsnummer|henkilotunnus|rijksregisternummer|ahv(_?nr|_?nummer)?)_|マイナンバー|個人番号|旅券番号|免許証番号|身份证', '_(type|country|expir\w*|valid\w*|issue\w*|date|format)_'),
  (4, 'email', 'tj', '_(e_?mails?|e_?mail_?(address(es)?|addr|adr|adresse)|mail|mail_?(address|addr|adresse)|courriel|adresse_(e_?)?mail|adresse_electronique|correo(_electronico)?|posta_elettronica|indirizzo_(e_?)?mail|pec|e_?mail_?adres|endereco_(e_?)?mail|correio_eletronico|adres_(e_?)?mail|poczta_elektroniczna|meeru(_?adoresu)?|meru_adoresu)_|メール|電子メール|邮箱', '_(template|subject|status|type|kind|format|domain|provider|count|server|host|port|folder|body|text|settings?|label|title|queue|frequency|preference|options?|betreff|vorlage|verified|confirmed|sent|opt)_'),
  (5, 'fax', 'tn', '_(tele)?fax(_?(no|number|nr|nummer))?_|ファックス|ＦＡＸ', '_(type|status|sent|template)_'),
  (5, 'phone', 'tn', '_(phones?|phone_?(no|number|nr|home|work|mobile)|telephones?(_(no|number))?|tel|tel_?(no|nr|number|nummer)|mobiles?(_?(no|number|phone|nr))?|cell(_?phone|ular)?|msisdn|telefon(e|o|s|nummer|nr|szam)?|tel_nr|handy(_?(nummer|nr))?|handynummer|mobil(e|nummer|nr|telefon|funk)?|rufnummer|numero_(de_)?(telephone|telefono|telefone|tel)|portable|telephone_portable|gsm|movil|celular|cellulare|numero_cellulare|telefoon(_?nummer)?|telefoonnummer|mobiel(_?nummer)?|telemovel|numer_telefonu|komorka|komorkowy|denwa(_?bangou?)?|keitai(_?bangou?)?)_|電話|携帯|ファックス|手机', '_(type|model|brand|os|country_code|verified|prefix)_'),
  (6, 'iban', 'tn', '_(iban|bank_?account(_(no|number|nr))?|account_?(iban|holder_iban)|konto_?(nummer|nr)|bankverbindung|bankkonto|numero_(de_)?(compte|cuenta|conto|conta)(_bancari[oa])?|rib|cuenta_(bancaria|corriente)|conto_corrente|rekening_?nummer|bankrekening|conta_bancaria|nib|numer_(konta|rachunku)|rachunek_bankowy|koza_?bangou?|kouza_?bangou?)_|口座番号|银行账号', null),
  (6, 'card', 'tn', '_(credit_?card(_(no|number|nr))?|card_?(no|number|nr)|cc_?(no|num|number)|kreditkarte(n_?(nummer|nr))?|kartennummer|carte_(bancaire|de_credit)|numero_carte|tarjeta(_(credito|numero))?|numero_tarjeta|carta_(di_)?credito|kredietkaart|creditcard(_?nummer)?|cartao_(de_)?credito|karta_kredytowa|numer_karty|cvv|cvc)_|クレジットカード|カード番号', '_(type|brand|last|expir\w*)_'),
  (7, 'birth_date', 'dt', '_(birth_?dates?|birth_?days?|date_?of_?birth|dob|born(_on)?|dt_?nasc|geburts_?(datum|tag)|geb_?(dat|datum)|gebdat|date_(de_)?naissance|ne_le|fecha_(de_)?nac(imiento)?|data_(di_)?nascita|geboorte_?(datum|dag)|data_(de_)?nascimento|data_urodzenia|tanjou?bi|seinen_?gappi|fodselsdato|syntymaaika)_|生年月日|誕生日|出生日期', null),
  (7, 'birth_place', 't', '_(birth_?place|place_of_birth|geburts_?ort|lieu_(de_)?naissance|lugar_(de_)?nacimiento|luogo_(di_)?nascita|geboorteplaats|local_(de_)?nascimento|miejsce_urodzenia|shusshinchi)_|出生地', null),
  (8, 'given_name', 't', '_(first_?names?|f_?name|given_?names?|fore_?names?|christian_name|middle_?(name|initial)s?|vornamen?|rufname|zweiter_vorname|prenoms?|nombre_(de_)?pila|primer_nombre|segundo_nombre|nome_proprio|primeiro_nome|voor_?na(am|men)|roepnaam|voorletters|imi(e|ona)|pierwsze_imie|drugie_imie|first_kana|mei(_?kana)?)_|^_名_$|名カナ', null),
  (8, 'family_name', 't', '_(last_?names?|l_?name|sur_?names?|family_?names?|maiden_?name|birth_?name|nachnamen?|familienname|zuname|geburtsname|maedchenname|nom_(de_)?(famille|naissance|jeune_fille)|apellidos?|primer_apellido|segundo_apellido|apellido_(paterno|materno)|cognome|achter_?naam|tussenvoegsel|geboortenaam|meisjesnaam|sobrenome|apelido|ultimo_nome|nazwisko|nazwisko_(rodowe|panienskie)|last_kana|sei(_?kana)?|myou?ji)_|^_姓_$|^_氏_$|苗字|姓カナ', null),
  (9, 'full_name', 't', '_(full_?name|person_?name|customer_?name|client_?name|contact_?(name|person)|patient_?name|employee_?name|guest_?name|applicant_?name|recipient_?name|cardholder(_name)?|account_?holder|display_?name|real_?name|vollstaendiger_name|kunden_?name|ansprechpartner|kontakt_?person|empfaenger_?name|kontoinhaber|vor_und_nachname|mitarbeiter_?name|nom_(complet|client|prenom|et_prenom)|nom_du_client|titulaire|nombre_(completo|cliente|y_apellidos)|apellidos_y_nombre|titular|nome_(completo|cliente|cognome|e_cognome)|nominativo|intestatario|volledige_naam|klant_?naam|contactpersoon|nome_do_cliente|imie_i_nazwisko|imie_nazwisko|nazwisko_i_imie|shimei|namae|simei|full_kana)_|氏名|名前|お名前|姓名', '_(template|type)_'),
  (10, 'name', 't', '^_(name|names|nom|nombre|nome|naam|nazwa_osoby|kana|furigana)_$|フリガナ|ふりがな', null),
  (11, 'username', 't', '_(user_?names?|login(_?name)?|user_?login|nick_?names?|screen_?name|account_?name|benutzer_?name|anmelde_?name|nom_(d_)?utilisateur|identifiant|pseudo|usuario|nombre_usuario|nome_utente|gebruikers_?naam|nome_(de_)?(utilizador|usuario)|nazwa_uzytkownika)_|ユーザー名', '_(attempts?|count|type|at|date|time|url)_'),
  (12, 'street', 'tj', '_(street(_?(address|name|no|number))?|address(_?line)?|addresses|addr|mailing_address|postal_address|(home|billing|shipping|delivery)_address|strasse|str|strasse_(und_)?(nr|hausnummer)|haus_?(nummer|nr)|anschrift|adresse|wohnadresse|lieferadresse|rechnungsadresse|(ligne_)?adresse(_ligne)?|rue|voie|adresse_postale|direccion|calle|domicilio|indirizzo|residenza|straat(naam)?|huis_?nummer|adres|endereco|rua|logradouro|morada|ulica|adres_(zamieszkania|korespondencyjny)|nr_domu|juu?sho|jyuusho|banchi)_|住所|番地|地址', '_(type|id|ip|mac|e_?mail|mail|web|url|server|city|state|country|zip|code|verified|status|register)_'),
  (13, 'postcode', 'tn', '_(zip(_?code)?|postal_?code|post_?code|plz|postleitzahl|code_?postal|codigo_?postal|cod_?postal|cap|postcode|cep|kod_?pocztowy|yuu?bin(_?bangou?)?)_|郵便番号|邮编', null),
  (14, 'city', 't', '_(city|town|locality|suburb|district|stadt|wohnort|ort|ortsname|gemeinde|ville|commune|localite|ciudad|localidad|poblacion|municipio|citta|comune|localita|stad|woonplaats|plaats|gemeente|cidade|localidade|freguesia|miasto|miejscowosc|gmina|shikuchou?son|shi)_|市区町村|^_市_$|城市', null),
  (15, 'region', 't', '_(state|province|region|county|bundesland|kanton|departement|provincia|regione|comunidad_autonoma|provincie|estado|wojewodztwo|prefecture|todou?fuken|ken)_|都道府県', null),
  (16, 'country', 't', '_(country(_?code)?|nation|land|laendercode|pays|code_pays|pais|paese|nazione|kraj|kuni)_|^_国_$|国名', null),
  (17, 'nationality', 't', '_(nationality|citizenship|nationalitaet|staatsangehoerigkeit|staatsbuergerschaft|nationalite|citoyennete|nacionalidad|nazionalita|cittadinanza|nationaliteit|nacionalidade|narodowosc|obywatelstwo|kokuseki)_|国籍', null),
  (17, 'gender', 'tnb', '_(gender|sex|salutation|geschlecht|anrede|sexe|civilite|genre|genero|sexo|tratamiento|sesso|genere|geslacht|aanhef|plec|seibetsu)_|性別', null),
  (17, 'family', 'tnb', '_(marital_status|family_status|number_of_children|familienstand|kinderzahl|anzahl_kinder|situation_(familiale|matrimoniale)|etat_civil|estado_civil|numero_de_hijos|stato_civile|burgerlijke_staat|stan_cywilny|kekkon)_|配偶者|婚姻', null),
  (18, 'ip_address', 'ti', '_(ip|ip_?(address|addr|adresse|adres)|(remote|client|last|login|source|src|user|visitor|sign_in|current_sign_in|last_sign_in|created|registration)_(ip|addr|host)|adresse_ip|direccion_ip|indirizzo_ip|endereco_ip|adres_ip)_|ＩＰアドレス|IPアドレス', '_(pool|range|whitelist|blacklist|allowed|server)_'),
  (18, 'device', 'tj', '_(device_?(id|token|uuid|fingerprint)|advertising_?id|idfa|gaid|imei|imsi|mac_?addr(ess)?|push_token|cookie(_?id)?|session_?id|visitor_?id|user_?agent|browser_fingerprint|geraete_?(id|kennung))_|端末', null),
  (18, 'location', 'tnj', '_(latitude|longitude|lat|lng|lon|geo_?(location|point|code)|gps(_\w+)?|coordinates|breitengrad|laengengrad|koordinaten)_|緯度|経度', null),
  (18, 'social', 't', '_(facebook|twitter|linkedin|instagram|skype|whatsapp|telegram|xing|tiktok|github|line_id)(_?(id|url|handle|name|profile))?_', '_(enabled|share|count|api)_'),
  (19, 'photo', 'ty', '_(photo|portrait|avatar|profile_?(picture|image|photo)|passbild|lichtbild|foto|signature_image|zdjecie|kaojashin)_|顔写真', '_(type|width|height|mime)_'),
  (20, 'salary', 'tn', '_(salary|wages?|income|annual_income|gross_pay|net_pay|gehalt|lohn|bruttogehalt|einkommen|jahreseinkommen|salaires?|revenus?|salario|sueldo|ingresos|stipendio|reddito|retribuzione|salaris|loon|inkomen|rendimento|vencimento|pensja|wynagrodzenie|dochod|kyuu?yo|nenshuu|credit_score|schufa(_score)?|bonitaet)_|給与|年収', null),
  (21, 'occupation', 't', '_(job_?title|occupation|profession|employer|company|company_?name|organi[sz]ation|beruf|position|stelle|arbeitgeber|firma|abteilung|metier|poste|entreprise|societe|employeur|profesion|ocupacion|puesto|empresa|professione|mansione|azienda|ditta|beroep|functie|werkgever|bedrijf|profissao|cargo|zawod|stanowisko|shokugyou?|kinmusaki)_|職業|会社名|勤務先', null),
  (21, 'title', 't', '^_(title|titel|titre|titulo|titolo|tytul)_$', null),
  (22, 'language', 't', '_(language|locale|preferred_language|sprache|korrespondenzsprache|langue|idioma|lingua|taal|jezyk|gengo)_|言語', null),
  (23, 'free_text', 'tj', '_(comments?|notes?|remarks?|memo|annotations?|free_?text|message(_text)?|bio(graphy)?|about_me|description|reason_text|feedback|complaint|bemerkung(en)?|notiz(en)?|kommentar(e|y|ze)?|anmerkung(en)?|freitext|nachricht|beschreibung|hinweis(e)?|beschwerde|commentaires?|remarques?|observations?|messages?|comentarios?|observacion(es)?|notas?|mensaje|observac(ao|oes)|mensagem|commento|commenti|komentarz(e)?|osservazion[ei]|messaggio|opmerking(en)?|aantekening(en)?|notitie(s)?|bericht|uwagi|uwaga|notatk[ai]|wiadomosc|opis|bikou?|biko|komento|memo_?ran)_|備考|メモ|コメント|備註|摘要|特記', null);
end;
comment on function gdpr_policy.discovery_words() is
  'What names of columns mean: kind, types it can have, patterns over gdpr_policy.name_words(), patterns that speak against it. English, German, French, Spanish, Italian, Dutch, Portuguese, Polish, Japanese (in Latin letters and in kanji), and some Nordic and Chinese words.';

create or replace function gdpr_policy.name_kinds(p_words text[])
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  v_rule record;
  v_found jsonb := '[]';
begin
  -- rule by rule, not name by name: PostgreSQL keeps some thirty patterns compiled, and to compile one is what costs
  for v_rule in select * from gdpr_policy.discovery_words() as w order by w.rank loop
    v_found := v_found || coalesce((
      select jsonb_agg(jsonb_build_object('words', u.word, 'kind', v_rule.kind, 'types', v_rule.types, 'rank', v_rule.rank))
      from unnest(p_words) as u (word)
      where u.word ~ v_rule.words and not coalesce(u.word ~ v_rule.veto, false)
    ), '[]');
  end loop;
  return (
    select coalesce(jsonb_object_agg(k.words, k.kinds), '{}')
    from (
      select f.value ->> 'words' as words, jsonb_agg(f.value - 'words' order by f.n) as kinds
      from jsonb_array_elements(v_found) with ordinality as f (value, n)
      group by f.value ->> 'words'
    ) as k
  );
end
$function$;
comment on function gdpr_policy.name_kinds(text[]) is
  'What each of these names (as gdpr_policy.name_words() writes them) can mean, the likeliest first: {words: [{kind, types, rank}]}.';

create or replace function gdpr_policy.person_words(p_words text)
returns integer
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  select case
    when p_words ~ '_(companies|company|organi[sz]ations?|firm(a|en)?|vendors?|suppliers?|lieferant(en)?|shops?|stores?|filiale?n?|branch(es)?|entreprises?|societes?|fournisseurs?|empresas?|proveedor(es)?|aziend[ae]|fornitor[ei]|bedrijven|leveranciers?|fornecedor(es)?|firm[ay]|dostawc[ay])_$' then -1
    when p_words ~ '_(types?|groups?|roles?|status(es)?|settings?|categor(y|ies)|permissions?|templates?|typen?|gruppen?|rollen?)_$' then 0
    when p_words ~ '_(customers?|clients?|users?|persons?|people|contacts?|employees?|staff|members?|patients?|students?|pupils?|subscribers?|leads?|guests?|applicants?|candidates?|visitors?|participants?|attendees?|donors?|tenants?|passengers?|drivers?|teachers?|players?|prospects?|individuals?|accounts?|profiles?|voters?|residents?|authors?|kunden?|kundin|kundenstamm|kundendaten|benutzer|nutzer|mitarbeiter(in|innen)?|angestellter?|person(en|al)?|personendaten|kontakte?|mitglied(er)?|patient(en|in)|schueler|studierende|studenten|bewerber|teilnehmer|interessent(en)?|ansprechpartner|mieter|spender|empfaenger|fahrer|gaeste|clients?|clientes?|utilisateurs?|employes?|salaries?|personnes?|adherents?|membres?|eleves?|etudiants?|abonnes?|candidats?|usuari[oa]s?|emplead[oa]s?|personas?|soci[oa]s?|pacientes?|alumn[oa]s?|contactos?|clienti|utent[ei]|dipendent[ei]|person[ae]|pazient[ei]|student[ei]|iscritt[oi]|membr[oi]|contatt[oi]|klant(en)?|gebruikers?|medewerkers?|werknemers?|personen|persoon|leden|lid|patienten|leerlingen|contactpersonen|utilizador(es)?|funcionari[oa]s?|pesso?as?|membros?|contatos?|klien(t|ci)|klientow|uzytkowni(k|cy)|pracowni(k|cy)|osob[ay]|osoby|pacjen(t|ci)|czlon(ek|kowie)|uczniowie|kontakty|kokyaku|shain|juugyouin|jugyoin|kaiin|kanja|okyakusama|yuuza|gakusei)_$'
      or p_words ~ '(顧客|社員|会員|患者|従業員|ユーザー|お客様|学生|利用者|個人|氏名|客户|用户)' then 2
    when p_words ~ '_(customer|client|user|person|contact|employee|member|patient|student|subscriber|lead|guest|applicant|kunde|kunden|benutzer|mitarbeiter|person|utilisateur|employe|cliente|usuario|empleado|utente|dipendente|klant|gebruiker|medewerker|funcionario|klient|uzytkownik|pracownik|osoba|kokyaku|shain|kaiin)_' then 1
    else 0
  end;
end;
comment on function gdpr_policy.person_words(text) is
  'What the words of a table''s name say: 2 its rows are persons, 1 it has to do with persons, 0 nothing, -1 its rows are organisations.';

create or replace function gdpr_policy.is_actor(p_words text)
returns boolean
language sql
immutable
strict
parallel safe
security invoker
begin atomic
  -- who did something with the row, not whom it is about
  select p_words ~ '_(by|created_by\w*|updated_by\w*|creator|modifier|editor|approver|reviewer|assigne[ed]|assigned|handler|clerk|operator|manager|supervisor|rep|sales_?rep|support_?rep|agent|admin|moderator|processor|von|angelegt|erstellt|erstellt_von|geaendert|geaendert_von|bearbeiter|sachbearbeiter|betreuer|vertreter|par|cree_par|modifie_par|gestionnaire|creado|modificado|por|gestor|creato|creato_da|modificato|da|referente|door|aangemaakt|behandelaar|criado|alterado|utworzy\w*|zmodyfikow\w*|opiekun|tantou(sha)?)_|担当|作成者|更新者';
end;
comment on function gdpr_policy.is_actor(text) is
  'Whether a link column says who handled a row (created_by, sales_rep) and not whom it is about.';
