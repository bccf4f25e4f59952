"""``gdprdb form``: the texts that persons agree to."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from gdprdb import forms
from gdprdb.cli.options import database, dry_run_option, dsn_option, go_ahead, yes_option
from gdprdb.cli.output import Rows, fetched, output, say
from gdprdb.dsn import one


@click.group()
def form() -> None:
    """Record, publish and show consent forms.

    Example:

        gdprdb form load newsletter.en.toml newsletter.de.toml
    """


@form.command()
@click.option(
    "--language",
    type=click.Choice(forms.languages()),
    default="en",
    show_default=True,
    help="Of the example.",
)
def example(language: str) -> None:
    """Print an example to start from.

    Example:

        gdprdb form example --language de > newsletter.de.toml
    """
    click.echo(forms.example(language), nl=False)


@form.command()
@dsn_option
@click.argument("file", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@dry_run_option
@output
def load(dsn: str | None, file: tuple[Path, ...], dry_run: bool) -> Rows:
    """Record forms from TOML files as drafts: all of the files, or none.

    Example:

        gdprdb form load newsletter.en.toml newsletter.de.toml
    """
    read = [forms.read(path) for path in file]
    done = "Recorded as drafts. gdprdb form publish puts them in force."
    with database(dsn, dry_run=dry_run, done=done) as connection:
        rows = [
            (
                text.name,
                *one(
                    connection,
                    "select gdpr.record_form(%s, %s, %s, %s, %s, %s, %s)",
                    [
                        text.name,
                        text.language,
                        text.purposes,
                        text.channels,
                        text.title,
                        text.statement,
                        text.privacy_notice,
                    ],
                ),
                text.language,
            )
            for text in read
        ]
    return Rows(["name", "version", "language"], rows)


@form.command()
@dsn_option
@click.option("--name", required=True, help="Of the form.")
@click.option(
    "--default-language", required=True, help="For persons whose language it does not speak."
)
@dry_run_option
@yes_option
def publish(dsn: str | None, name: str, default_language: str, dry_run: bool, yes: bool) -> None:
    """Publish the draft of a form in all its languages. Its texts cannot be changed any more.

    Example:

        gdprdb form publish --name newsletter --default-language en
    """
    with database(dsn) as connection:
        plan = fetched(
            connection.execute(
                "select name, version, language, purposes, channels, title from gdpr.consent_form"
                " where name = %s and published_at is null order by language",
                [name],
            )
        )
        if not go_ahead(plan, "Publish these texts?", dry_run=dry_run, yes=yes):
            return
        (version,) = one(connection, "select gdpr.publish_form(%s, %s)", [name, default_language])
    say(f"Version {version} is in force.")


@form.command("list")
@dsn_option
@output
def list_(dsn: str | None) -> Rows:
    """List all forms, their versions and languages.

    Example:

        gdprdb form list --format json
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select form_id, name, version, language, purposes, channels, title, published_at,"
                " is_current, is_default, digest from gdpr.consent_form"
                " order by name, version, language"
            )
        )


@form.command()
@dsn_option
@click.option("--name", required=True, help="Of the form.")
@click.option("--version", type=int, help="Of the form; else the one in force.")
@click.option("--language", help="Of the text; else the default.")
@output
def show(dsn: str | None, name: str, version: int | None, language: str | None) -> Rows:
    """Show a text word by word, with its digest.

    Example:

        gdprdb form show --name newsletter --language de --format json
    """
    with database(dsn) as connection:
        return fetched(
            connection.execute(
                "select form_id, name, version, language, purposes, channels, title, statement,"
                " privacy_notice, digest, canonical_text, published_at from gdpr.consent_form"
                " where name = %(name)s"
                " and case when %(version)s::int is null then is_current"
                " else version = %(version)s end"
                " and case when %(language)s::text is null then is_default"
                " else language = %(language)s end",
                {"name": name, "version": version, "language": language},
            )
        )
