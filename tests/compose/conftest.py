"""One deployment for these tests: it takes minutes to make."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compose.project import Project, made_images


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    return made_images()


@pytest.fixture(scope="session")
def project(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Up and well; taken down with all that it has, and nothing of it is left."""
    made = Project(tmp_path_factory.mktemp("project"), images)
    try:
        made.make_secrets()
        made.up()
        made.wait_until_well()
        yield made
    finally:
        made.down()
    assert not any(made.left_over().values()), made.left_over()
