"""The shop's tables and its first rows. Dates are ages in days or hours, counted back from the day of reading, so that
the refund window of each order stays what the story needs. Money is in cents. All people and companies are invented."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

SCHEMA = (
    """CREATE TABLE customers (
        customer TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, preferred_contact TEXT NOT NULL,
        damage_claims_12m INTEGER NOT NULL, notes TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1)""",
    """CREATE TABLE orders (
        "order" TEXT PRIMARY KEY, customer TEXT NOT NULL REFERENCES customers, item TEXT NOT NULL, lines TEXT NOT NULL,
        total_cents INTEGER NOT NULL, currency TEXT NOT NULL DEFAULT 'USD', ordered_days_ago INTEGER NOT NULL,
        method TEXT NOT NULL, ending TEXT NOT NULL, refunded_cents INTEGER NOT NULL DEFAULT 0,
        carrier_note TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1,
        CHECK (refunded_cents BETWEEN 0 AND total_cents))""",
    """CREATE TABLE tickets (
        ticket TEXT PRIMARY KEY, subject TEXT NOT NULL, customer TEXT NOT NULL REFERENCES customers,
        "order" TEXT REFERENCES orders, tag TEXT NOT NULL, status TEXT NOT NULL, opened_hours_ago INTEGER NOT NULL,
        message TEXT NOT NULL, photos TEXT NOT NULL)""",
    "CREATE TABLE policy (section TEXT PRIMARY KEY, title TEXT NOT NULL, text TEXT NOT NULL)",
    """CREATE TABLE suppliers (
        supplier TEXT PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL, product TEXT NOT NULL,
        unit_cents INTEGER NOT NULL, minimum_order INTEGER NOT NULL, url TEXT NOT NULL, certificate TEXT NOT NULL,
        lead_time_days INTEGER NOT NULL, contact_email TEXT NOT NULL, second_source TEXT NOT NULL)""",
    """CREATE TABLE records (
        record TEXT PRIMARY KEY, kind TEXT NOT NULL, label TEXT NOT NULL, last_used_days_ago INTEGER NOT NULL,
        size_kb INTEGER NOT NULL, version INTEGER NOT NULL DEFAULT 1)""",
    """CREATE TABLE refunds (
        id INTEGER PRIMARY KEY, "order" TEXT NOT NULL REFERENCES orders, cents INTEGER NOT NULL,
        reason TEXT NOT NULL)""",
    'CREATE TABLE outbox (id INTEGER PRIMARY KEY, "to" TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL)',
    """CREATE TABLE effects (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, tool TEXT NOT NULL, arguments TEXT NOT NULL,
        result TEXT NOT NULL, at TEXT NOT NULL)""",
)


def rows(columns: str, *values: tuple[Any, ...]) -> list[Row]:
    names = columns.split()
    return [dict(zip(names, each, strict=True)) for each in values]


CUSTOMERS = rows(
    "customer name email preferred_contact damage_claims_12m notes",
    ("C-20917", "Ines Carvalho", "ines.carvalho@example.com", "phone", 0, ""),
    ("C-20944", "Amara Diallo", "amara.diallo@example.com", "email", 0, "Prefers short messages."),
    ("C-20871", "Tomas Lindqvist", "tomas.lindqvist@example.com", "email", 1, ""),
    ("C-20802", "Jonas Weber", "jonas.weber@example.net", "post", 0, ""),
    ("C-20958", "Sofia Marino", "sofia.marino@example.org", "email", 0, "Runs a campsite; orders in spring."),
    ("C-20963", "Elif Demir", "elif.demir@example.com", "phone", 2, ""),
)


def line(item: str, cents: int) -> Row:
    return {"item": item, "cents": cents}


ORDERS = rows(
    "order customer item lines total_cents ordered_days_ago method ending refunded_cents carrier_note",
    (
        "48213",
        "C-20917",
        "Enamel kettle",
        [line("Enamel kettle", 8400), line("Birch serving tray", 4500)],
        12900,
        6,
        "Visa",
        "4412",
        0,
        "The carrier logged a drop at the depot while the parcel was sorted.",
    ),
    ("48231", "C-20944", "Storm lantern", [line("Storm lantern", 5800)], 5800, 9, "Mastercard", "0937", 0, ""),
    (
        "48166",
        "C-20871",
        "Carbon tent pole set",
        [line("Carbon tent pole set", 41250)],
        41250,
        75,
        "Visa",
        "2208",
        0,
        "",
    ),
    (
        "48240",
        "C-20802",
        "Wool blanket",
        [line("Wool blanket", 9600)],
        9600,
        12,
        "Visa",
        "7751",
        0,
        "No scan for eight days, then delivered to a parcel shop.",
    ),
    (
        "48252",
        "C-20958",
        "Camp stove",
        [line("Camp stove", 7450), line("Gas cartridge, 3 pieces", 2100)],
        9550,
        4,
        "American Express",
        "1006",
        0,
        "Delivered, signed for at the door.",
    ),
    ("48119", "C-20963", "Cast-iron pan", [line("Cast-iron pan", 6200)], 6200, 41, "Visa", "3390", 6200, ""),
    ("48263", "C-20944", "Folding saw", [line("Folding saw", 3900)], 3900, 2, "Mastercard", "0937", 0, ""),
)


def photo(name: str, shows: str) -> Row:
    return {"name": name, "shows": shows}


TICKETS = rows(
    "ticket subject customer order tag status opened_hours_ago message photos",
    (
        "T-301",
        "Kettle arrived dented",
        "C-20917",
        "48213",
        "damaged-in-transit",
        "open",
        5,
        (
            "Hello, the kettle from order 48213 came out of the box with a deep dent in its side. The tray is fine"
            " and I keep it. Please refund the kettle, $84.00. I am hard to reach by phone these weeks, so please"
            " write to me by email. Ines Carvalho"
        ),
        [
            photo("kettle-side.jpg", "a deep dent in the side of the kettle, the enamel chipped around it"),
            photo("box-corner.jpg", "a crushed corner of the parcel"),
        ],
    ),
    (
        "T-302",
        "Cracked lantern",
        "C-20944",
        "48231",
        "damaged-in-transit",
        "open",
        4,
        (
            "The glass globe of the storm lantern from order 48231 is cracked all the way round. Please refund the"
            " $58.00. No email needed, just the refund. Amara Diallo"
        ),
        [photo("globe.jpg", "a crack that runs around the glass globe of the lantern")],
    ),
    (
        "T-303",
        "Tent pole snapped",
        "C-20871",
        "48166",
        "damaged-in-transit",
        "open",
        3,
        (
            "One segment of the carbon tent pole set from order 48166 must have been broken in the parcel. I only"
            " unpacked it for our trip last weekend. I would like the $412.50 back. Tomas Lindqvist"
        ),
        [photo("pole.jpg", "a pole segment broken near its joint")],
    ),
    (
        "T-304",
        "Blanket came late",
        "C-20802",
        "48240",
        "late-delivery",
        "open",
        27,
        "The blanket arrived a week after the birthday it was meant for. Is there anything you can do? Jonas Weber",
        [],
    ),
    (
        "T-305",
        "Wrong gas cartridges",
        "C-20958",
        "48252",
        "wrong-item",
        "open",
        22,
        (
            "The cartridges in order 48252 have a screw valve and my stove takes the other kind. Can I swap them?"
            " Sofia Marino"
        ),
        [photo("valve.jpg", "a cartridge with a screw valve beside the stove")],
    ),
    (
        "T-306",
        "Can I change my address?",
        "C-20944",
        "48263",
        "question",
        "open",
        2,
        "Please send order 48263 to my office if it has not left yet. Amara Diallo",
        [],
    ),
    (
        "T-288",
        "Pan handle loose",
        "C-20963",
        "48119",
        "faulty",
        "solved",
        720,
        "The handle of the pan was loose from the first day. Elif Demir",
        [photo("handle.jpg", "a gap between the pan and its handle")],
    ),
)

POLICY = rows(
    "section title text",
    (
        "3.1",
        "Damaged in transit",
        (
            "A refund for an item damaged in transit needs evidence: the damage shows on a photo, or the carrier"
            " logged an incident with the parcel. The refund is the price of the damaged line, not of the whole order."
        ),
    ),
    (
        "3.2",
        "Refund window",
        (
            "A refund may be issued for orders up to 60 days old. A request for an older order is left for a person:"
            " note on the customer's record that it was left for a person, and why."
        ),
    ),
    (
        "3.3",
        "Where the money goes",
        "A refund goes to the original card, never to another card, account or voucher. A refund can't be taken back.",
    ),
    (
        "3.4",
        "Writing to customers",
        (
            "Emails about a refund are plain and warm. They say what was done and what happens with the item, and"
            " never promise dates. A customer who asks for no email gets none."
        ),
    ),
)

SUPPLIERS = rows(
    "supplier name country product unit_cents minimum_order url certificate lead_time_days contact_email second_source",
    (
        "S-11",
        "Fjellwerk",
        "Norway",
        "Aluminium tent pole, 7001-T6, 8.5 mm",
        620,
        200,
        "https://fjellwerk.example/poles",
        "ISO 9001, number NO-4471",
        21,
        "quotes@fjellwerk.example",
        "The public register of certificates lists NO-4471 for Fjellwerk as valid.",
    ),
    (
        "S-12",
        "Alto Campo",
        "Portugal",
        "Aluminium tent pole, 6061-T6, 8.5 mm",
        540,
        500,
        "https://altocampo.example/tent-poles",
        "ISO 9001, number PT-2093",
        35,
        "sales@altocampo.example",
        "The public register of certificates lists PT-2093 for another company; Alto Campo is not in it.",
    ),
    (
        "S-13",
        "Baltic Mast",
        "Estonia",
        "Aluminium tent pole, 7001-T6, 9.0 mm",
        680,
        100,
        "https://balticmast.example/catalogue",
        "ISO 9001, number EE-0318",
        14,
        "hello@balticmast.example",
        "The public register of certificates lists EE-0318 for Baltic Mast as valid.",
    ),
    (
        "S-14",
        "Kestrel Composites",
        "Ireland",
        "Carbon tent pole, wound, 8.0 mm",
        1890,
        50,
        "https://kestrel-composites.example",
        "ISO 9001, number IE-1127",
        28,
        "trade@kestrel-composites.example",
        "The public register of certificates lists IE-1127 for Kestrel Composites as valid.",
    ),
    (
        "S-21",
        "Emailwerk Sauer",
        "Germany",
        "Enamel kettle, 1.5 l",
        2310,
        120,
        "https://emailwerk-sauer.example",
        "Food contact declaration, 2 pages",
        30,
        "vertrieb@emailwerk-sauer.example",
        "A trade magazine names Emailwerk Sauer as a maker of enamel kettles; it says nothing of certificates.",
    ),
    (
        "S-22",
        "Verre et Flamme",
        "France",
        "Glass globe for storm lanterns",
        410,
        300,
        "https://verreetflamme.example",
        "EN 60672, test report 88-120",
        18,
        "contact@verreetflamme.example",
        "The laboratory's own list holds the test report 88-120.",
    ),
)

RECORDS = rows(
    "record kind label last_used_days_ago size_kb",
    ("E-1001", "exports", "Orders of last spring, all columns", 402, 412_300),
    ("E-1002", "exports", "Newsletter addresses, trial", 377, 18_240),
    ("E-1003", "exports", "Stock count, warehouse B", 231, 96_410),
    ("E-1004", "exports", "Refunds by month", 188, 7_905),
    ("E-1005", "exports", "Failed export, never finished", 164, 154_000),
    ("E-1006", "exports", "Customer list for the auditor", 121, 58_770),
    ("E-1007", "exports", "Carrier invoices", 96, 33_120),
    ("E-1008", "exports", "Orders of this quarter", 41, 120_880),
    ("E-1009", "exports", "Stock count, both warehouses", 8, 101_350),
    ("E-1010", "exports", "Bookkeeping, last month", 3, 64_200),
    ("K-2101", "tickets", "Auto-reply to the winter newsletter", 298, 12),
    ("K-2102", "tickets", "Address bounced", 276, 9),
    ("K-2103", "tickets", "Where is my parcel, solved", 243, 31),
    ("K-2104", "tickets", "Swap of a blanket, solved", 199, 44),
    ("K-2105", "tickets", "Question about a lantern, solved", 87, 15),
    ("K-2106", "tickets", "Pan handle loose, solved", 29, 210),
    ("B-3301", "carts", "Cart with 3 items, no customer", 145, 4),
    ("B-3302", "carts", "Cart with 1 item, no customer", 133, 2),
    ("B-3303", "carts", "Cart with 6 items, no customer", 94, 6),
    ("B-3304", "carts", "Cart with 2 items, Sofia Marino", 38, 3),
    ("B-3305", "carts", "Cart with 1 item, Jonas Weber", 5, 2),
)

# In the order their references need.
ROWS: dict[str, list[Row]] = {
    "customers": CUSTOMERS,
    "orders": ORDERS,
    "tickets": TICKETS,
    "policy": POLICY,
    "suppliers": SUPPLIERS,
    "records": RECORDS,
}
