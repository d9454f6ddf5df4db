"""Words of the generated WebShop catalogue: departments, product types, attributes, options, sentences.

Data only; ``generate.py`` puts them together. Every brand, name and sentence is invented. Rules the tables
keep, checked by the tests: no sentence and no name holds an attribute; no two attributes of a section, and no
two values of an option group, are alike for the fuzzy comparison of the reward; and an option value holds no
colour word unless it is that word (so not "standard", which holds "tan": the reward would read a colour).

Lists are comma-separated. Attributes come as ``adjectives; nouns; purposes``: "<adjective> boots with <noun>
for <purpose>".
"""

from __future__ import annotations

from typing import NamedTuple


class Department(NamedTuple):
    """A coarse category, and attributes that fit each of its sections."""

    category: str
    name: str
    attributes: str


class Section(NamedTuple):
    """Product types of one department that share attributes and option groups (keys of OPTIONS)."""

    department: str
    name: str
    options: str
    attributes: str


class ProductType(NamedTuple):
    """A kind of product as shoppers call it, the rest of its category path, its usual prices in dollars."""

    section: str
    query: str
    leaf: str
    low: int
    high: int


DEPARTMENTS = (
    Department(
        "fashion",
        "Apparel & Footwear",
        "moisture wicking, machine washable; reinforced stitching, reflective trim; daily wear, cold weather",
    ),
    Department(
        "beauty",
        "Beauty & Grooming",
        "cruelty free, paraben free, travel sized; natural ingredients; sensitive skin, daily care",
    ),
    Department(
        "electronics",
        "Electronics & Audio",
        "easy setup, water resistant; carrying pouch, status light; home office, long trips",
    ),
    Department(
        "garden", "Home & Garden", "easy clean, fade resistant; modern design; living room, guest room"
    ),
    Department(
        "grocery", "Food & Pantry", "gluten free, dairy free, non gmo; resealable bag; picnic baskets"
    ),
    Department("pets", "Pet Care", "odor free, vet approved; storage tub; small breeds, senior pets"),
    Department("toys", "Toys & Games", "battery free, bpa free; rounded corners; birthday gift, rainy days"),
    Department(
        "sports",
        "Sports & Outdoors",
        "light weight, tear resistant; carry strap, mesh sleeve; beginner training",
    ),
    Department(
        "office",
        "Office & Stationery",
        "acid free, smudge proof; protective sleeve; class notes, travel journals",
    ),
    Department(
        "tools",
        "Tools & Hardware",
        "heavy duty, rust proof; belt clip, storage rack; tight spots, home repair",
    ),
    Department(
        "automotive",
        "Vehicle Care",
        "easy apply, heat resistant; clear instructions; family vehicles, heavy rain",
    ),
    Department(
        "kitchen", "Kitchen & Dining", "dishwasher safe, bpa free; hanging loop; family meals, small kitchens"
    ),
)
SECTIONS = (
    Section(
        "fashion",
        "Footwear",
        "color, shoe",
        "slip resistant, quick drying; rubber sole, memory foam, arch support",
    ),
    Section(
        "fashion",
        "Layers",
        "color, garment, fit",
        "fleece lined, wrinkle free; button closure, zip pockets, ribbed cuffs",
    ),
    Section("beauty", "Hair", "scent, count", "sulfate free, color safe; argan oil, keratin blend; dry hair"),
    Section("beauty", "Skin", "scent, count", "oil free, fast absorbing; shea butter, green tea; fine lines"),
    Section(
        "electronics",
        "Sound",
        "color, style",
        "noise cancelling, fast charging; stereo sound, deep bass, touch control",
    ),
    Section(
        "electronics",
        "Cables",
        "color, feet",
        "gold plated, tangle free; braided cord, aluminum shell, strain relief",
    ),
    Section(
        "electronics",
        "Storage",
        "capacity, color",
        "high speed, shock proof; metal housing, write lock, key ring",
    ),
    Section(
        "garden",
        "Furniture",
        "color, inch",
        "space saving, easy assembly; solid wood, steel frame, storage drawer",
    ),
    Section(
        "garden",
        "Bedding",
        "color, bed, pattern",
        "double sided, stain resistant; zipper closure, cotton filling, corner ties",
    ),
    Section(
        "grocery",
        "Snacks",
        "flavor, count",
        "low sugar, individually wrapped, plant based; sea salt, whole grains",
    ),
    Section(
        "grocery",
        "Drinks",
        "flavor, count",
        "caffeine free, fair trade; warm spices, rich aroma; iced drinks",
    ),
    Section(
        "pets", "Feeding", "meat, count", "grain free, high protein; added vitamins, bone broth; picky eaters"
    ),
    Section(
        "pets",
        "Comfort",
        "color, garment",
        "chew proof, machine washable; padded lining, metal buckle, raised edges",
    ),
    Section(
        "toys",
        "Building",
        "theme, count",
        "hand painted, easy grip; wooden pieces, magnetic parts, picture guide",
    ),
    Section(
        "toys",
        "Pretend Play",
        "theme, color",
        "extra soft, machine washable; embroidered eyes, weighted base, secret pocket",
    ),
    Section(
        "sports",
        "Fitness",
        "color, style",
        "non slip, sweat proof; natural rubber, foam core, alignment marks",
    ),
    Section(
        "sports",
        "Camping",
        "color, garment",
        "water proof, four season; insect netting, compression sack, draft collar",
    ),
    Section(
        "office", "Paper", "ruling, color", "spiral bound, lay flat; index tabs, thick pages, ribbon marker"
    ),
    Section(
        "office",
        "Writing",
        "color, count",
        "quick drying, archival quality; rubber grip, fine tip, metal clip",
    ),
    Section(
        "tools",
        "Hand Tools",
        "style, count",
        "drop forged, double ended; cushioned handle, laser markings, magnetic tip",
    ),
    Section(
        "automotive",
        "Interior",
        "color, style",
        "universal fit, stain resistant; raised edges, hook fasteners, side pockets",
    ),
    Section(
        "automotive",
        "Detailing",
        "scent, count",
        "streak free, long lasting; plant extracts, foam applicator, uv filter",
    ),
    Section(
        "kitchen", "Cookware", "color, inch", "oven safe, even heating; glass lid, cast iron, cool handle"
    ),
    Section(
        "kitchen",
        "Drinkware",
        "color, pattern",
        "leak proof, double walled; bamboo cap, silicone sleeve, wide mouth",
    ),
    Section(
        "kitchen",
        "Preparation",
        "material, garment",
        "knife friendly, odor resistant; juice groove, rubber feet, side handles",
    ),
)
TYPES = (
    ProductType("Footwear", "hiking boots", "Outdoor Footwear › Boots", 35, 190),
    ProductType("Footwear", "running shoes", "Outdoor Footwear › Trainers", 25, 150),
    ProductType("Layers", "rain jackets", "Jackets", 25, 180),
    ProductType("Layers", "knit sweaters", "Knitwear", 18, 120),
    ProductType("Hair", "hair serum", "Treatments", 6, 60),
    ProductType("Hair", "shampoo bars", "Washing", 5, 40),
    ProductType("Skin", "face cream", "Creams & Lotions", 8, 90),
    ProductType("Skin", "body lotion", "Creams & Lotions", 6, 50),
    ProductType("Sound", "wireless headphones", "Listening › Headphones", 20, 280),
    ProductType("Sound", "portable speakers", "Listening › Speakers", 18, 250),
    ProductType("Cables", "charging cables", "Cables & Adapters", 5, 40),
    ProductType("Cables", "video cables", "Cables & Adapters", 6, 60),
    ProductType("Storage", "flash drives", "Removable Storage", 6, 90),
    ProductType("Storage", "memory cards", "Removable Storage", 8, 120),
    ProductType("Furniture", "side tables", "Tables & Shelves › Tables", 30, 280),
    ProductType("Furniture", "book shelves", "Tables & Shelves › Shelves", 35, 300),
    ProductType("Bedding", "throw pillows", "Pillows", 8, 60),
    ProductType("Bedding", "duvet covers", "Covers", 20, 150),
    ProductType("Bedding", "knit blankets", "Blankets", 18, 130),
    ProductType("Snacks", "granola bars", "Bars & Crackers", 5, 45),
    ProductType("Snacks", "rice crackers", "Bars & Crackers", 5, 35),
    ProductType("Drinks", "herbal tea", "Hot Drinks › Tea", 5, 50),
    ProductType("Drinks", "hot cocoa", "Hot Drinks › Cocoa", 5, 45),
    ProductType("Feeding", "dog treats", "Treats", 5, 45),
    ProductType("Feeding", "cat food", "Meals", 8, 80),
    ProductType("Comfort", "dog harnesses", "Walking", 10, 70),
    ProductType("Comfort", "pet beds", "Resting", 15, 140),
    ProductType("Building", "building blocks", "Thinking Games", 10, 120),
    ProductType("Building", "jigsaw puzzles", "Thinking Games", 8, 60),
    ProductType("Pretend Play", "plush toys", "Soft Toys", 7, 70),
    ProductType("Pretend Play", "hand puppets", "Soft Toys", 7, 50),
    ProductType("Fitness", "yoga mats", "Floor Training", 12, 110),
    ProductType("Fitness", "resistance bands", "Floor Training", 8, 60),
    ProductType("Camping", "sleeping bags", "Overnight › Bags", 25, 220),
    ProductType("Camping", "camping tents", "Overnight › Tents", 40, 300),
    ProductType("Paper", "paper notebooks", "Bound Paper", 5, 35),
    ProductType("Paper", "weekly planners", "Bound Paper", 7, 50),
    ProductType("Writing", "gel pens", "Pens", 5, 40),
    ProductType("Writing", "brush markers", "Markers", 6, 60),
    ProductType("Hand Tools", "screwdriver sets", "Turning & Fastening", 10, 120),
    ProductType("Hand Tools", "socket wrenches", "Turning & Fastening", 12, 160),
    ProductType("Interior", "floor mats", "Cabin", 18, 160),
    ProductType("Interior", "seat covers", "Cabin", 22, 200),
    ProductType("Detailing", "car wax", "Surface Care", 8, 60),
    ProductType("Detailing", "air fresheners", "Cabin Air", 5, 30),
    ProductType("Cookware", "frying pans", "Stove & Oven", 15, 160),
    ProductType("Cookware", "baking dishes", "Stove & Oven", 12, 90),
    ProductType("Drinkware", "travel mugs", "Bottles & Mugs", 8, 50),
    ProductType("Drinkware", "water bottles", "Bottles & Mugs", 8, 60),
    ProductType("Preparation", "cutting boards", "Boards", 10, 110),
)

# Key -> name of the group as the pages show it, values.
OPTIONS: dict[str, tuple[str, str]] = {
    "color": ("color", "black, white, blue, red, green, pink, gray, brown, purple, yellow, orange, navy"),
    "garment": ("size", "small, medium, large, xl, xxl"),
    "shoe": ("size", "6, 7, 8, 9, 10, 11"),
    "inch": ("size", "8 inch, 12 inch, 36 inch, 40 inch, 55 inch"),
    "bed": ("size", "twin, full, queen, king"),
    "feet": ("size", "3 feet, 6 feet, 15 feet"),
    "count": ("size", "single, double, triple, dozen"),
    "capacity": ("capacity", "64 gb, 128 gb, 256 gb, 512 gb"),
    "fit": ("fit type", "regular, slim, relaxed, petite"),
    "style": ("style", "classic, modern, vintage, compact, deluxe"),
    "pattern": ("pattern name", "striped, plaid, floral, dotted, solid"),
    "material": ("material type", "oak, bamboo, marble, glass, maple"),
    "flavor": ("flavor name", "vanilla, chocolate, lemon, honey, cinnamon, coconut, berry, caramel"),
    "meat": ("flavor name", "chicken, beef, salmon, turkey, duck"),
    "scent": ("scent", "lavender, rose, cedar, citrus, jasmine, unscented"),
    "theme": ("theme", "dinosaur, space, ocean, farm, castle"),
    "ruling": ("style", "ruled, blank, dotted, grid"),
}
# How people say an option, by the name of its group.
SPOKEN_OPTIONS: dict[str, str] = {
    "color": "in {}",
    "size": "in size {}",
    "capacity": "with a capacity of {}",
    "fit type": "in a {} fit",
    "style": "in the {} style",
    "pattern name": "with a {} pattern",
    "material type": "made of {}",
    "flavor name": "in {} flavor",
    "scent": "with the {} scent",
    "theme": "with a {} theme",
}

BRANDS = (
    "Quorvale Tamsick Brindolo Ferrowyn Ostrella Pelmarch Vintrazo Hobnuri Kelvestra Marrowind Zupplin "
    "Arvondel Dorrimex Lumbrosk Sennaway Yarrowick Calvetto Nimbrook Othrella Pundrake Rivelund Skarnelo "
    "Tolvany Umbrisa Wexolan Fennimor Grestova Halbrini Jorvanta Kippermoor Loftrana Mistralux Norvessa "
    "Plovander Quistane Rundelia Sollumar Thrennick Ulvaros Vandrimo Whistora Xanvelo Yolbrini Zantreva "
    "Bravontis Cresmora Dunvetia Elstrano"
)
SERIES = (
    "Alder Beacon Comet Delta Ember Falcon Glacier Harbor Isle Juniper Kestrel Lantern Meadow Nimbus "
    "Orbit Prairie Quartz Ridge Summit Tundra Upland Vista Willow Zenith Anchor Breeze Canyon Dune Echo "
    "Fjord Grove Heron Inlet Jasper Knoll Lagoon Mesa Nova Osprey Pine"
)

TITLES: tuple[str, ...] = (
    "{brand} {model} {adjectives}{type}{tail}",
    "{brand} {type} {model}, {listed}",
    "{adjectives}{type}{tail} by {brand}, {model}",
    "{type} - {brand} {model} ({listed})",
    "{brand} {adjectives}{type}, {model} Series{tail}",
    "{listed}: {brand} {type} {model}",
)

# Sentences about one attribute.
ADJECTIVE_LINES: tuple[str, ...] = (
    "{attribute} and made to stay that way.",
    "Rated {attribute} after forty hours in our test room.",
    "We call it {attribute} because customers asked for exactly that.",
    "Built to be {attribute}, season after season.",
    "{attribute} in every color and size we sell.",
    "Our buyers mention one thing first: {attribute}.",
)
NOUN_LINES: tuple[str, ...] = (
    "Comes with {attribute} as part of the design.",
    "{attribute} included, not sold as an extra.",
    "Thanks to {attribute} it is worth its price.",
    "The difference you notice: {attribute}.",
    "Now with {attribute}, by popular request.",
    "{attribute} checked by hand before packing.",
)
PURPOSE_LINES: tuple[str, ...] = (
    "A sound choice for {attribute}.",
    "Planned with {attribute} in mind.",
    "Works well for {attribute}, and for much else.",
    "Many people buy this for {attribute}.",
    "For {attribute} there is hardly a simpler answer.",
)
# Sentences about nothing in particular.
FILLERS: tuple[str, ...] = (
    "Arrives in a plain carton that folds flat for the paper bin.",
    "Questions are answered by the {brand} team within two days.",
    "Designed, checked and packed in one workshop.",
    "The {series} range has been with us since the first {brand} list.",
    "Returns are accepted for {days} days.",
    "A printed leaflet in plain words is in the carton.",
    "Weighs about {days} ounces with its carton.",
    "Each piece carries a batch number, so parts can be traced.",
    "Goes nicely with other {query} from {brand}.",
    "Colors on screens may look a little different from the real thing.",
    "Take a look at the measurements before you order.",
    "Tried by {days} volunteers before it went on sale.",
)
INTROS: tuple[str, ...] = (
    "Meet the {series} line of {query} from {brand}.",
    "{brand} has been making {query} for {days} years.",
    "Looking for {query} without fuss? {brand} offers the {series} line.",
    "The {series} name stands for honest {query}.",
    "With the {series} line {brand} shows what {query} can be.",
    "{brand} presents {query} from the {series} line.",
)
# What people write. {wish} is the type with its attributes, {options} the spoken options (or nothing).
HUMAN: tuple[str, ...] = (
    "i am looking for {wish}{options}",
    "i need {wish}{options}, please",
    "can you help me find {wish}{options}",
    "i would like to buy {wish}{options}",
    "my friend wants {wish}{options}",
    "show me {wish}{options}",
    "hello, i'm after {wish}{options}",
    "as a present, i want {wish}{options}",
)
