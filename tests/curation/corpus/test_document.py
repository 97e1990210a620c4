from pathlib import Path

from curation.corpus.document import corpus_page

PAGE = Path(__file__).parents[3] / "docs" / "corpus.md"


def test_the_page_about_columns_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == corpus_page(), "run `make docs`"
