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
    apartment app appetizer apple application apron aquarium arc area arm armchair arrangement array
    arrest artichoke article artifact artwork assignment assortment astronaut athlete attempt
    attendee aunt avocado award away baby backpack badge bag bagel baguette baker balcony bale ball
    balloon ballot banana band bandage bank barbell barn barrel barrette baseball basket basketball
    bass bat batch bath bathroom bathtub battalion batter battery beach bead beaker bean bear beat
    beaver bed bedbug bedroom bee beef beehive beer beetle beignet belt bench beret berry bet
    bicycle bicyclist big bike bill billboard bin binary binder biography birch bird birdhouse
    birthday biscuit bit bitcoin bite black blackbird blanket blink blister block blood blouse blue
    blueberry bluegill boa board boat boatload bollard bolt bond bone bonnet book bookcase bookmark
    boot bottle boulder bounce bouquet bow bowl bowler bowlful box boy bracelet branch bread
    breakfast breath brick bridesmaid bridge brochure broomstick brother brown brownie bubble bucket
    bug builder building bulb bull bump bun bunch bundle bunny burger burr burrito bus bush bushel
    business butter butterfly button buyer byte cabbage cabinet cable cage cake calculator calf call
    calorie camera camper can candidate candle candy cannoneer canoe cantaloupe cap capsule captain
    car caramel caravan card cardinal carnation carpenter carpet carriage carrot carton case cash
    cashew cashier castle cat caterpillar cave cavity ceiling cell cement cereal certificate chain
    chair champion chandelier change channel chapter character charge charger charm chart check
    cheerleader cheese cheesecake chef cherry chess chest chick chicken chihuahua child chime chimp
    chip chipmunk chive chocolate choice chord chore chrysanthemum church circle citation citizen
    city clam clarinet class classmate classroom clerk client climber clip cloak clock closet cloth
    clothesline cloud clover club cluster coach coal coat cob cobra coconut code coefficient coffee
    coil coin collection collector college colony color column combination comic commercial
    committee common company complaint complete complex computer concert cone congruent connection
    consecutive consonant constant contact container contestant continent contract convertible cook
    cookbook cookie cooler copper copy corn correct correspond cost costume cotton cougar counselor
    count counter country couple coupon course cousin cow crab cracker craft cranberry crate crater
    crayon cream credit cricket criminal crocodile croissant crop cross crosswalk crouton crow cub
    cube cucumber cupcake curler curtain customer cycle cyclist cylinder dahlia daisy dancer
    dandelion dart data date daughter deal dean debt decimal deck decoration deep deer delegate
    delivery demerit denominator desert desk dessert detective device diagonal dial diameter diamond
    diaper diary die different digit dime dimple dinner dip dirt disc discount dish dislike distinct
    dive dividend divisor doctor documentary dodgeball doe dog doll dolphin donation donkey donut
    door dose dot dough doughnut dove download dragon draw drawer drawing dream dress drink driver
    driveway dromedary drone drop drum drummer dryer duck duckling dumpling dvd dwarf eagle ear
    earring edge eel egg eggplant element elephant elevator elf email emerald employee empty emu end
    endpoint enemy engine engineer english entrance entree entry envelope episode equal equation
    equilateral eraser essay even event exam example exercise experiment expression exterior extra
    eye fabric face facility factor failure fair fairy family fan farm farmer farmhand farthing
    father faucet favorable feather female fence fern ferry fertilizer field fig figure figurine
    file filet fillet film finch finger fire firecracker firefighter firefly firework fish fisherman
    flag flagstone flamingo flashcard flat flavor flea flick flight flock floor flop flour flower
    flute flyer folder folding follower football footprint forest fork foul fox fraction frame
    friend frisbee frog fruit fry fuel full galaxy gallery game garden garment gas gasoline gate
    gear gecko gem gemstone geranium gerbil gharial ghost giant gift gig gingerbread giraffe girl
    glass glove gnome goal goat goblin gold golden goldfish golf golfer goose gorilla grade graduate
    grain grandchild granddaughter grandfather grandmother grandparent grape graph graphic grass
    grasshopper gravel gray green grey grid group grouping guard guest guitar gulp gumball gumdrop
    gun guppy guy gym hair hairstyle hall hamburger hammer hamster hand handbag handful handshake
    hare hat hatchling hawk hay head heap heart heartbeat helmet helper hen herd hexagon high
    highlighter hike hiker hill hippo history hit hockey hog hole home homework honey honeydew hoody
    hop horse hose hospital hotdog house household human hurricane husband hushpuppy ice identical
    iguana image implant income individual infection ingredient inhabitant injection inpatient
    insect instance instruction instructor integer interest interior intern intersection invitation
    invoice ipod iron irrational island issue item jack jacket janitor jar jean jellybean jersey
    jewel job jog jogger joke journey judge jug juice jump jumper junebug junior kangaroo keg kernel
    kettle key keyboard kick kid kilowatt kind kindergartner king kitchen kitten kiwi knack knife
    knight knock knockout knot koala lace ladder lady ladybug lake lamb lamp land lane lap laptop
    large lasagna last latte lattice lawn lawyer layer layup leaf left leg lego lemon lemonade
    leopard lesson letter lettuce level lever library life light lighter lilac lily lime line link
    lion lipstick litter little lizard loaf loan lobster lock locker log logarithm logger lollipop
    long loop lorry loser loss lot low lug lunch lychee macaron macaroon machine magazine maggot
    magnet male mamba man manager mango map marble marigold mark marker marshmallow mascot mask mat
    match matchbook matchbox matchstick material math matrix meal measure meat meatball medal
    medicine meeting melon member memo memory mentor message metal microphone milk milkshake
    millipede mineral minivan mink minnow mirror mitten mixture model money monic monitor monkey
    monster moon moose mosquito moth mother motorcycle mountain mouse mouthful move movie muffin mug
    multiple multiset mural muscovy mushroom musician nail nap napkin natural necklace nectarine
    neighbor nephew net new newborn newspaper nickel niece night node noncongruent nonnegative
    nonzero noodle nose note notebook novel number numerator nurse nut object octagon octopus odd
    office officer oil old olive omelet onion option orange orc orchid order ordered ordinary oreo
    organization orphanage ostrich outcome outfit outsider oven owl oyster pack package packet pad
    page pail painkiller paint paintbrush painter painting pair pairing palindrome pallet palm
    pamphlet pan pancake panda panel pansy pant papaya paper paperclip parabola paragraph parakeet
    parent park parrot parsnip part participant partition party pass passenger password pasta pastry
    patch path patient patron pattern pawn pawpaw pay paycheck payment pea peach peanut pear pearl
    pebble pelican pen pencil penguin penny pentagon pepper perfect performance period permit
    permutation person peseta pet petal petunia pfennig phone photo photograph physician pianist
    pickle picture pie piece pig pigeon piglet pile pill pillow pilot pin pine pineapple pinecone
    pink pip pipe pirate pistachio pitch pitcher pixel pizza place plane planet plank plant plastic
    plate player playlist plug plum pocket pod poem poet point pointer pole pollywog polygon
    polynomial pomegranate pomelo pond pony poodle pool pop popcorn popsicle porcupine pork portion
    portrait position positive possibility possible post postcard poster pot potato pouch practice
    pregnancy present pretzel prime prince princess principal print printer prism prize problem
    professor profit program project proper puff pug pump pumpkin pup pupil puppy purple purse
    pushup puzzle pyramid quadrilateral quadruple queen quest question quilt quiz rabbit raccoon
    race racer racket racquet radish radius rain raisin ranger raspberry rat rational rattlesnake
    ray real ream receipt recipe recovery recruit rectangle rectangular red redwood reel
    refrigerator region regular remaining rep reporter representative reservation resident response
    restaurant revenue revolution rhea rhinestone rhino ribbon rice riddle ride rider ridge right
    ring river road robe robin robot rock rocket rodent roll rollercoaster roof room roommate
    rooster root rope rose rotation round route row ruffle rug ruler rung runner sack sailboat
    sailor salad salary sale salmon salon salt sample sand sandal sandcastle sandwich sapling
    sapphire sauce sausage save saving scallop scarf schnauzer school science scientist scissor
    scoop scooter score scorpion scout screen screw seagull seashell season seat section sector seed
    seedling segment selection semester senior sentence sequence sequin server serving session set
    setting shade shape share shark sheep sheet shelf shell shift shingle ship shipment shirt shoe
    shop shoplifter shopper short shot shower shrimp shrub sibling side sided sign signature silk
    silo silver singer single sink sip sister site situp size skateboard skater skein skeleton
    sketch skier skip skirt skunk slack sleep sleeve slice slip slipper slot slurpee small
    smartphone smile smoothie snack snail snake snapdragon sneaker snicker snow snowball snowflake
    soap soccer sock soda sofa soil sold soldier solution son song sonnet sort soup sour souvenir
    space spaceship spade sparkler sparrow spear spectator spellbook sphere spider spiderweb spin
    spoke spool spoon spoonful sport spot sprig spring sprint sprinter sprout squad square squat
    squid squirrel stable stack stage stair staircase stalk stamp standard stanza stapler star
    starburst starter state statue steak steel stencil step stick sticker stingray stitch stock
    stone stool stoplight storage store story strand straw strawberry street streetlight stride
    striker string stripe stroke student stuff style subcommittee subject subscriber subsection
    subset substitution success sucker sugar suggestion suit suitcase sundae sunflower sunlight
    supplement supply surfer survey suspect swan swarm sweater sweatshirt sweet swim swimmer
    syllable symbol syrup tab table tablet taco tadpole tail tall tally tangent tangerine tank tap
    tarantula task tattoo taxi tea teacher teacup team teaspoonful teddy tee teenager television
    tennis tent term terrier tesla test text textbook thick thing thorn throw thumbtack tick ticket
    tie tiger tile tiling time tin tire tissue toad toddler toe toenail token tomato tool tooth
    toothbrush toothpick top topping toss total touchdown tour tourist towel tower town toy tractor
    trail train trainee trainer training transistor tray treadmill treasure treat tree trial
    triangle trick tricycle trip triplet troll trombone trophy trout truck truckload truffle trumpet
    tub tuba tube tulip tumbler tuna tunnel tuple turkey turtle tutor tv twig twin type ukulele
    umbrella uncle unicorn unicycle uniform unique unit unordered unsold utensil vacation vaccine
    valid valley value vampire van vanilla vase vector vegetable vehicle vent version vertex vessel
    vet vibration video view viewer village vine violin visitor vitamin vlog volunteer vote voter
    vowel waffle wager waiter waitress walk wall wallop walnut wand warthog washer washing wasp
    watch water watermelon wave way weasel website wedge weed weekend whale wheat wheel whisker
    whistler white whiteboard whole wick wide widget wife wildflower win window wine wing winner
    wipe wire witch wizard wolf woman wombat wood woodblock wooden wool word work workday worker
    worksheet worm yarn yellow yogurt yolk young zebra zipper zombie
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
