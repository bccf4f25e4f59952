"""What leaves the house: to whom, on what a transfer rests, and who hears of it later."""

from __future__ import annotations

from gdprdb.demo.scenes.cast import APP, DPO
from gdprdb.demo.scenes.scene import JOERG, Scene

CARRIER = "Parcel AG"
MAILBOX = "privacy@parcel.example"


def recipients(scene: Scene) -> None:
    """A carrier in the country, and one where nothing protects."""
    story = scene.story
    story.chapter(
        "Who gets data is on record, person by person",
        "Art. 15(1)(c), 28, 44",
        """Bicycles are delivered by a carrier, who needs name and address. The officer registers
        it with its contract.""",
    )
    story.ask(
        DPO,
        """
        select gdpr.record_recipient(:'name', 'processor', 'DE',
          p_contract => 'AV-7', p_address => :'address', p_language => 'en')
        """,
        name=CARRIER,
        address=MAILBOX,
    )
    story.refuse(
        DPO,
        """
        select gdpr.record_recipient('Call Centre Inc', 'processor', 'IN', p_contract => 'AV-8')
        """,
        "nothing goes where nothing protects it",
        sqlstate="PR701",
    )
    story.note("The order desk hands the bicycle over, and says so:")
    told = story.ask(
        APP,
        """
        select gdpr.record_disclosure(:'name',
          gdpr.subjects_of('crm.customers', array(
            select id::text from customers where id = 1 or customer_no = 'C-J')),
          'orders', 'crm.customers',
          array['first_name', 'last_name', 'street', 'postal_code', 'city', 'phone'])
        """,
        name=CARRIER,
    )
    story.check("two persons, each on record", told.value["persons"] == 2, told.value)
    answer = story.ask(
        DPO,
        """
        select recipient, role, country, categories, disclosures
        from gdpr.recipients_of(gdpr.find_subject('email', :'email'))
        """,
        email=JOERG,
    )
    story.check(
        "asked by the person, the shop can say who has his data",
        answer.column("recipient") == [CARRIER],
        answer.rows,
    )
