"""A data set as one HTML file that needs no network, with images of each class."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pepr_mlops.data.description import Description, Sheet
from pepr_mlops.data.splits import Pixels
from pepr_mlops.report.templates import TEMPLATES, asset

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html(described: Description, sheet: Sheet, made: str) -> str:
    """The page; `made` says when and by which version. It names no file and no patient."""
    return TEMPLATES.get_template("dataset.html").render(
        policy=_POLICY,
        css=asset("assets/page.css"),
        data=described,
        sheet={name: [_address(image) for image in images] for name, images in sheet.items()},
        made=made,
    )


def _address(image: Pixels) -> str:
    """An image as an address that holds all of it."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
