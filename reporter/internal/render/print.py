# Reads one JSON object {html, variant, identifier, attachments: [{name, description, data (base64)}]} from standard input and
# writes a PDF to standard output. Nothing is fetched: not from the net, not from a file. With the argument "versions" it prints
# what it is made of, because the same bytes only come from the same versions.
import base64
import json
import resource
import sys

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

import logging

logging.getLogger("weasyprint").addHandler(logging.NullHandler())

import pydyf
import weasyprint
from weasyprint import HTML
from weasyprint.text.fonts import FontConfiguration


def versions():
    import cffi
    import fontTools
    from weasyprint.text.ffi import ffi, pango

    json.dump({
        "weasyprint": weasyprint.__version__,
        "pango": ffi.string(pango.pango_version_string()).decode() if hasattr(pango, "pango_version_string") else str(pango.pango_version()),
        "fonttools": fontTools.version,
        "pydyf": pydyf.__version__,
        "python": sys.version.split()[0],
    }, sys.stdout, sort_keys=True)


def deny(url, *args, **kwargs):
    raise ValueError("external resources are not allowed")


def associate(document, pdf):
    """Gives attachments what ISO 19005-3 wants and WeasyPrint 57 leaves out: relationship, type, and the list in the catalog."""
    specs = [o for o in pdf.objects if isinstance(o, dict) and o.get("Type") == "/Filespec"]
    for spec in specs:
        spec["F"] = spec["UF"]
        spec["AFRelationship"] = "/Data"
    for o in pdf.objects:
        if isinstance(getattr(o, "extra", None), dict) and o.extra.get("Type") == "/EmbeddedFile":
            o.extra["Subtype"] = "/text#2Fcsv"
            o.extra["Params"]["ModDate"] = pdf.info["CreationDate"]
    if specs:
        pdf.catalog["AF"] = pydyf.Array([s.reference for s in specs])


def main():
    job = json.load(sys.stdin.buffer)
    attachments = [
        # The base URL only gives the file its name.
        weasyprint.Attachment(string=base64.b64decode(a["data"]), base_url="file:///" + a["name"], description=a["description"], url_fetcher=deny)
        for a in job.get("attachments") or []
    ]
    document = HTML(string=job["html"], base_url="about:blank", url_fetcher=deny, media_type="print")
    sys.stdout.buffer.write(document.write_pdf(
        font_config=FontConfiguration(), variant=job["variant"], identifier=job["identifier"].encode(),
        attachments=attachments or None, finisher=associate))


if sys.argv[1:] == ["versions"]:
    versions()
else:
    main()
