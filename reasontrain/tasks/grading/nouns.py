"""Words behind a number that do not change it: counted nouns, their adjectives, and fillers."""

from __future__ import annotations

import re

from reasontrain.tasks.grading.lexicon import words_in

_IRREGULAR = {
    "people": "person",
    "persons": "person",
    "children": "child",
    "men": "man",
    "women": "woman",
    "mice": "mouse",
    "geese": "goose",
    "teeth": "tooth",
    "dice": "die",
    "oxen": "ox",
    "vertices": "vertex",
    "matrices": "matrix",
    "indices": "index",
    "axes": "axis",
    "wolves": "wolf",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "halves": "half",
    "shelves": "shelf",
    "scarves": "scarf",
    "calves": "calf",
    "wives": "wife",
    "lives": "life",
    "feet": "foot",
    "movies": "movie",
    "cookies": "cookie",
    "brownies": "brownie",
    "pies": "pie",
    "ties": "tie",
    "shoes": "shoe",
    "hoes": "hoe",
    "calories": "calorie",
    "buses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "zombies": "zombie",
    "selfies": "selfie",
    "dies": "die",
}
_ES = re.compile(r"(?:ch|sh|x|ss|zz|[aeiou](?:t|h|g|r|p|f)o|[^aeiou]o)es")

FILLERS = frozenset(
    words_in("""
    of the a an in total altogether overall all each apiece exactly precisely approximately about
    approx roughly around only just for per more combined together every its their his her our your
    my this that these such some both whole rounded inclusive etc sum de des du la le les el los las
    der die das den and und et y del di
    """)
)
"""Words that may stand anywhere behind a number and say nothing of its value."""

STOP = frozenset(
    words_in("""
    is are was were be been am has have had do does did not no nor non never wrong incorrect false
    invalid mistake maybe perhaps possibly probably likely guess if unless except but rather
    instead actually or and either neither than then so least most less fewer greater under over
    above below beyond between within nearly almost up down to from through thru plus minus times
    divided multiplied squared cubed root power powers raised factorial
    choose mod modulo modulus base percent percentage half halves third thirds quarter quarters
    fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth
    tenths hundredth hundredths thousandth thousandths hundred hundreds thousand thousands million
    millions billion billions trillion trillions dozen dozens score twice thrice double triple
    remainder rem one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy
    eighty ninety infinity infinite north south east west northeast northwest
    southeast southwest upward upwards downward downwards morning afternoon evening noon midnight
    pm ad bc bce ce ago later earlier early late before after where when with without which while
    because since thus hence therefore equals approximates first what how
    why who whom whose can could may might must shall should will would alternatively otherwise
    answer final sin cos tan cot sec csc log ln exp lim max min gcd lcm det
    """)
)
"""Words that never count as a noun, although a problem may contain them: they change a value."""

NOUNS = frozenset(
    words_in("""
    accident acorn acrobat actor additional adult afternoon age agent air airplane album alien
    alligator almond alpaca amoeba angle animal anniversary ant antacid antelope antler apart
    apartment app appetizer apple application apron aquarium arc arm armchair arrangement array
    arrest artichoke article artifact artwork assignment assortment athlete attempt attendee aunt
    avocado award away baby backpack badge bag bagel baguette baker bale ball balloon banana band
    bandage bank barbell barrel barrette baseball basket basketball bass bat batch bath bathroom
    battalion batter battery bead beaker bean bear beaver bed bedbug bedroom bee beef beehive beer
    beetle beignet belt bench beret berry bicycle big bike bill billboard bin binary binder
    biography birch bird birdhouse birthday biscuit bit bitcoin bite black blackbird blanket blister
    block blood blouse blue blueberry bluegill boa board boat bollard bolt bone bonnet book bookcase
    bookmark boot bottle boulder bounce bouquet bowl bowler bowlful box boy bracelet branch bread
    breakfast breath brick bridesmaid brochure broomstick brother brown brownie bubble bucket bug
    builder building bulb bull bump bun bunch bundle bunny burger burr burrito bus bush bushel
    business butter butterfly button buyer byte cabbage cabinet cage cake calculator calf call
    calorie camera camper can candidate candle candy cannoneer canoe cantaloupe cap capsule captain
    car caramel caravan card cardinal carnation carpenter carpet carriage carrot carton case cash
    castle cat caterpillar cavity ceiling cell cement cereal chair chandelier change channel chapter
    character charge charger charm chart check cheerleader cheese cheesecake chef cherry chess chest
    chick chicken chihuahua child chime chimp chip chipmunk chive chocolate choice chord chore
    chrysanthemum church circle citation citizen city clam clarinet class classmate classroom clerk
    client clip cloak clock cloth clothesline cloud clover club cluster coach coal coat cob cobra
    coconut code coefficient coffee coin collection collector college colony color column
    combination comic commercial committee common company complaint complete complex computer
    concert cone congruent connection consecutive consonant constant contact container contestant
    contract convertible cook cookbook cookie cooler copper copy corn correct correspond cost cotton
    cougar counselor count counter country couple coupon course cousin cow crab cracker craft
    cranberry crate crater crayon cream credit cricket criminal crocodile croissant crop cross
    crosswalk crouton crow cub cube cucumber cupcake curler customer cycle dahlia daisy dancer
    dandelion dart data date daughter debt decimal deck decoration deep deer delegate delivery
    demerit denominator desk dessert device diagonal dial diamond diaper diary die different digit
    dime dimple dinner dip dirt disc dish dislike distinct dive divisor doctor documentary dodgeball
    doe dog doll dolphin donation donut door dose dot dough doughnut dove download dragon drawing
    dream dress drink driver driveway dromedary drop drum drummer dryer duck duckling dumpling dvd
    eagle ear earring edge eel egg eggplant element elephant email emerald employee empty end
    endpoint enemy engine english entrance entree entry envelope episode equal equation equilateral
    eraser essay even event exam example exercise expression exterior extra eye fabric face facility
    factor fair fairy family farm farmer farmhand farthing father favorable feather female fence
    fern fertilizer field fig figure figurine file filet fillet film finch finger fire firecracker
    firefighter firefly firework fish flag flagstone flamingo flashcard flat flavor flea flick
    flight flock floor flour flower flute flyer folder folding follower football footprint fork foul
    fox fraction frame friend frisbee frog fruit fry fuel full gallery game garden garment gas
    gasoline gecko gem gemstone geranium gerbil gharial gift gig gingerbread giraffe girl glass
    glove gnome goal goat gold golden goldfish golf golfer goose gorilla grade graduate grain
    grandchild granddaughter grandfather grandmother grandparent grape graph graphic grass
    grasshopper gravel gray green grey grid group grouping guest guitar gumball gun guppy guy gym
    hair hairstyle hall hamburger hammer hamster hand handbag handshake hare hat hatchling hay head
    heap heart heartbeat helmet helper hen hexagon high highlighter hike hippo history hit hockey
    hog hole home homework honey honeydew hoody hop horse hospital hotdog house household human
    hurricane husband hushpuppy ice identical iguana image implant income individual infection
    ingredient inhabitant inpatient insect instance instruction instructor integer interest interior
    invitation ipod iron irrational island issue item jacket jar jean jellybean jersey jewel job jog
    jogger joke judge jug juice jump jumper junebug junior kangaroo kernel kettle key keyboard kick
    kid kilowatt kind kindergartner king kitchen kitten kiwi knack knife knock knockout knot koala
    ladder lady ladybug lamb lamp land lap laptop large lasagna last latte lattice lawn layer layup
    leaf left leg lego lemon lemonade leopard lesson letter lettuce level library life light lighter
    lilac lily lime line link lion lipstick little lizard loaf lock log logarithm logger lollipop
    long loop lorry loss lot low lug lunch lychee macaron macaroon machine magazine maggot magnet
    male mamba man manager mango marble marigold mark marker marshmallow mascot mask mat match
    matchbook matchbox matchstick material math matrix meal measure meat meatball medal medicine
    meeting melon member memo memory message metal microphone milk milkshake millipede mineral
    minivan mink minnow mirror mixture model money monic monitor monkey monster mother motorcycle
    mountain mouse move movie muffin mug multiple multiset mural muscovy mushroom musician nail nap
    napkin natural necklace nectarine neighbor nephew new newborn newspaper nickel niece night node
    noncongruent nonnegative nonzero noodle nose note notebook novel number numerator nurse nut
    object octagon odd office officer oil old olive omelet onion orange orc orchid ordered ordinary
    oreo organization orphanage outcome outfit outsider oven owl oyster pack package packet pad page
    pail painkiller paint paintbrush painter painting pair pairing palindrome pallet palm pamphlet
    pan pancake panda panel pansy pant papaya paper paperclip parabola paragraph parakeet parent
    park parrot parsnip part participant partition party pass passenger pasta pastry patch path
    patient patron pattern pawpaw pay paycheck payment pea peach peanut pear pearl pebble pelican
    pen pencil penguin penny pentagon pepper perfect performance period permit permutation person
    peseta pet petal petunia pfennig phone photo photograph physician pianist pickle picture pie
    piece pig pigeon piglet pile pill pillow pin pine pineapple pinecone pink pipe pirate pistachio
    pitch pitcher pixel pizza place plane planet plank plant plastic plate player playlist plug plum
    pocket pod poem poet point pointer pole pollywog polygon polynomial pomegranate pomelo pony
    poodle pool pop popcorn popsicle porcupine pork portion portrait position positive possibility
    possible post postcard poster pot potato pouch practice pregnancy present pretzel prime print
    printer prize problem profit program project proper puff pug pump pumpkin pup pupil puppy purple
    purse push-up pushup puzzle quadrilateral quadruple quest quilt quiz rabbit raccoon racer
    racquet radish rain raisin raspberry rat rational rattlesnake real ream recipe recovery
    rectangle rectangular red redwood reel refrigerator region regular remaining rep representative
    reservation restaurant revenue revolution rhea rhinestone rhino ribbon rice riddle ride rider
    ridge right ring road robe robin robot rock rodent roll rollercoaster roof room roommate rooster
    root rope rose rotation round route row ruffle rug rung runner sack sailboat sailor salary sale
    salmon salon salt sample sand sandcastle sandwich sapling sapphire sauce sausage save saving
    scallop scarf schnauzer school science scientist scissor scoop score scorpion scout screen screw
    seagull seashell season seat section sector seed seedling segment semester senior sentence
    sequence sequin serving session set setting shape share shark sheep sheet shelf shell shift
    shingle ship shipment shirt shoe shop shoplifter shopper short shot shower shrub sibling side
    sign signature silk silo silver singer single sister site situp size skein skeleton skip skirt
    slack sleep sleeve slice slip slipper slot slurpee small smartphone snack snail snake snapdragon
    sneaker snicker snow snowball snowflake soap soccer sock soda sofa soil sold soldier solution
    son song sonnet sort soup sour souvenir space spade sparkler spear spectator spellbook sphere
    spider spiderweb spoke spool spoon spoonful sport spot sprig spring sprint sprinter squad square
    squat squirrel stable stack stage stair staircase stalk stamp standard stanza stapler star
    starburst starter state statue steak steel stencil step stick sticker stingray stitch stone
    stool stoplight storage store story strand straw strawberry street streetlight striker string
    stripe stroke student stuff style subcommittee subject subscriber subsection subset substitution
    sucker sugar suggestion suit suitcase sundae sunflower sunlight supplement supply surfer survey
    swan sweater sweatshirt sweet swimmer symbol syrup tab table tablet tadpole tail tall tangerine
    tank tap tarantula task tattoo taxi tea teacher teacup team teaspoonful teddy tee teenager
    television tennis tent term terrier tesla test text textbook thick thing thorn throw thumbtack
    ticket tie tiger tile tiling time tin tire tissue toad toddler toe toenail token tomato tool
    tooth toothbrush toothpick top topping total touchdown tour tourist towel tower town toy tractor
    train trainer training transistor tray treadmill treasure treat tree triangle trick tricycle
    trip triplet troll trombone trophy trout truck truffle trumpet tub tuba tube tulip tumbler tuna
    tuple turkey turtle twig type ukulele umbrella uncle unicorn unicycle uniform unique unit
    unordered unsold utensil vacation vaccine valid value vampire van vanilla vase vector vegetable
    vehicle vent version vertex vessel vet vibration video view viewer village vine violin visitor
    vlog volunteer vote voter vowel waffle waiter walk wall wallop walnut wand warthog washer
    washing water watermelon way weasel website wedge weed weekend whale wheat wheel whisker
    whistler white whiteboard whole wick wide widget wife wildflower window wine wing wipe wire wolf
    woman wombat wood woodblock wooden wool word work workday worker worksheet worm yarn yellow
    yogurt yolk young zebra
    """)
)
"""Nouns that are counted, in the singular, and their common adjectives."""

_SYNONYMS = {
    "arrangement": "way",
    "possibility": "way",
    "permutation": "way",
    "combination": "way",
    "outcome": "way",
    "choice": "way",
    "method": "way",
    "kid": "child",
    "grey": "gray",
    "pupil": "student",
    "biscuit": "cookie",
    "photograph": "photo",
    "picture": "photo",
    "film": "movie",
    "automobile": "car",
    "bike": "bicycle",
    "root": "solution",
}

COUNTERS = frozenset(
    "倍个個只隻本次种種条條张張件名位颗顆辆輛棵把朵头頭块枚瓶杯盒袋箱双對对份幅台层層根支枝間间套組组"
    "人匹冊回册개명권마리대장송이번"
)
"""Chinese, Japanese and Korean counters; a noun may follow."""


def singular(word: str) -> str:
    """Return the singular of an English noun in lower case; other words stay as they are."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word[-1] != "s" or word[-2] in "sui'":
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if _ES.search(word, len(word) - 5 if len(word) > 5 else 0) else word[:-1]


def label(word: str) -> str:
    """Return the form of a noun in which two spellings of it are equal."""
    word = singular(word.lower())
    return _SYNONYMS.get(word, word)


def is_counted(word: str, nouns: frozenset[str]) -> bool:
    """Return True for a word that may follow a number without changing it.

    Args:
        word: a word in lower case.
        nouns: words of the problem, in lower case.
    """
    if word in STOP:
        return False
    return singular(word) in NOUNS or word in nouns or singular(word) in nouns
