"""The story that the demo tells, chapter by chapter.

Each chapter is a function that runs statements as the people of the shop (`cast`) and checks what
they get. The persons it is about are taken from the data: customers 1 to 5, one after the other.
"""

from __future__ import annotations

from gdprdb.demo.scenes.asking import answering, asking, withdrawal
from gdprdb.demo.scenes.deadlines import expiry, silence
from gdprdb.demo.scenes.doctor import doctor
from gdprdb.demo.scenes.erasure import erasure
from gdprdb.demo.scenes.forgetting import door, forgetting, plan
from gdprdb.demo.scenes.policy import before, declare
from gdprdb.demo.scenes.portal import portal
from gdprdb.demo.scenes.readers import administrator, analyst, application
from gdprdb.demo.scenes.rectification import rectification
from gdprdb.demo.scenes.registration import double_opt_in
from gdprdb.demo.scenes.requests import access, board
from gdprdb.demo.scenes.restore import restore
from gdprdb.demo.scenes.retention import retention
from gdprdb.demo.scenes.scene import Scene
from gdprdb.demo.scenes.seals import seals
from gdprdb.demo.scenes.sharing import recipients
from gdprdb.demo.scenes.writes import audit, unlawful_write

SMALLEST = 10
"""Customers that the story needs at least."""

CHAPTERS = (
    before,
    declare,
    application,
    analyst,
    administrator,
    expiry,
    asking,
    answering,
    silence,
    withdrawal,
    double_opt_in,
    unlawful_write,
    audit,
    seals,
    portal,
    board,
    recipients,
    access,
    rectification,
    erasure,
    plan,
    forgetting,
    door,
    retention,
    restore,
    doctor,
)
"""In the order in which they are told."""


def tell(scene: Scene) -> None:
    """The whole story. Raises DemoError at the first thing that is not as it should be."""
    for chapter in CHAPTERS:
        chapter(scene)
