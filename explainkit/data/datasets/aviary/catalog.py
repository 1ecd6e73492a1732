"""Every shape that aviary can draw, as text: add a line to add a shape.

A shape is the union of strokes of the pen, separated by semicolons:

- ``smooth u v, u v, …``: a polygon with its corners cut, save those marked by ``!``; ``cut`` cuts them less;
- ``polygon u v, u v, …``: a polygon as it is;
- ``ellipse u v radius [height]``: `height` is relative to the width, 1 unless given;
- ``stroke u v u v thickness [thickness]``: a line with round ends, of one thickness or from one to the other;
- ``fan n``, ``flower n``, ``star n``: n feathers, petals, points.

u points right and v up, within [-0.92, 0.92]. Beaks, tails and wings begin at u = -0.85 and point to the
right, crests grow up from v = -0.7, legs hang from v = 0.85, breasts are clipped by the body.
"""

CATALOG = {
    "beak.cone": "smooth -.9 .62, -.35 .55, !.55 -.06, -.35 -.55, -.9 -.58",
    "beak.dagger": "smooth -.9 .34, -.4 .3, !.92 -.02, -.4 -.28, -.9 -.34",
    "beak.hooked": ("smooth -.9 .6, -.2 .66, .45 .38, .62 -.1, !.5 -.78, .3 -.3, 0 -.22, -.4 -.42, -.9 -.52"),
    "beak.curved": ("smooth -.9 .46, -.2 .5, .45 .22, .8 -.3, !.86 -.88, .55 -.42, .1 -.1, -.4 -.2, -.9 -.3"),
    "beak.spoon": (
        "smooth -.9 .34, -.3 .2, .2 .22, .6 .46, .92 .34, .92 -.34, .6 -.46, .2 -.22, -.3 -.2, -.9 -.34"
    ),
    "beak.toucan": "smooth -.9 .66, -.3 .86, .5 .66, .9 .1, .84 -.34, .4 -.3, -.2 -.46, -.9 -.56",
    "crest.spiky": (
        "ellipse 0 -.6 .55 .6; polygon -.6 -.6, -.9 .45, -.1 -.4; "
        "polygon -.38 -.5, -.34 .88, .24 -.4; polygon 0 -.5, .34 .62, .5 -.55"
    ),
    "crest.mohawk": "smooth -.85 -.75, -.8 -.1, -.5 .45, 0 .72, .5 .48, .72 -.05, .7 -.75",
    "crest.plume": (
        "stroke .15 -.75 0 -.1 .15 .13; stroke 0 -.1 -.28 .38 .13 .17; stroke -.28 .38 -.6 .5 .17 .28"
    ),
    "crest.cap": "smooth -.9 -.88, -.86 -.35, -.45 -.04, .1 0, .62 -.25, .8 -.88",
    "crest.curl": (
        "stroke 0 -.8 .08 -.05 .13; stroke .08 -.05 .34 .34 .13 .15; ellipse .5 .42 .32; "
        "stroke -.3 -.8 -.34 -.2 .12; ellipse -.36 .06 .27"
    ),
    "tail.fork": (
        "smooth -.9 .16, -.3 .3, !.9 .8, .1 .14, -.2 -.02, -.9 -.1; "
        "smooth -.9 -.16, -.3 -.3, !.9 -.8, .1 -.14, -.2 .02, -.9 .1"
    ),
    "tail.fan": "fan 5",
    "tail.long": "smooth -.9 .17, -.3 .22, .5 .22, .9 .12, .9 -.12, .5 -.22, -.3 -.22, -.9 -.17",
    "tail.wedge": "smooth -.9 .16, -.1 .38, .25 .52, !.85 0, .25 -.52, -.1 -.38, -.9 -.16",
    "tail.square": "smooth -.9 .24, -.2 .36, !.36 .5, !.36 -.5, -.2 -.36, -.9 -.24",
    "tail.plume": (
        "stroke -.85 0 -.2 .1 .1 .12; stroke -.2 .1 .4 .42 .12 .14; ellipse .58 .52 .28; "
        "stroke -.2 0 .45 -.18 .1 .12; ellipse .62 -.2 .27"
    ),
    "wing.round": "smooth -.9 .1, -.75 .55, -.1 .62, .5 .42, .88 0, .6 -.42, 0 -.62, -.6 -.48",
    "wing.pointed": "smooth -.9 .05, -.7 .52, 0 .5, !.92 .18, .25 -.28, -.2 -.52, -.7 -.45",
    "wing.feathered": (
        "smooth -.9 .1, -.7 .58, 0 .56, .45 .25, .2 -.25, -.3 -.45, -.75 -.4; "
        "stroke -.1 .26 .72 .22 .2 .17; stroke -.2 0 .58 -.1 .2 .17; stroke -.3 -.2 .32 -.38 .2 .17"
    ),
    "wing.angular": "cut !-.88 .3, !.1 .62, !.9 -.02, !.2 -.22, !-.1 -.64, !-.62 -.36",
    "breast.round": "ellipse 0 0 .86",
    "breast.bib": "smooth -.8 .85, .85 .85, .88 .1, .2 -.85, -.3 -.7, -.75 0",
    "breast.sash": "smooth -.9 .18, 0 .42, .9 .62, .9 .02, 0 -.3, -.9 -.52",
    "feet.perching": (
        "stroke -.42 .86 -.38 -.6 .12; stroke -.38 -.6 -.06 -.78 .12 .08; "
        "stroke -.38 -.6 -.7 -.78 .12 .08; stroke .36 .86 .4 -.6 .12; "
        "stroke .4 -.6 .72 -.78 .12 .08; stroke .4 -.6 .08 -.78 .12 .08"
    ),
    "feet.webbed": (
        "stroke -.46 .86 -.42 -.5 .12; cut !-.5 -.3, !.06 -.86, !-.34 -.78, !-.74 -.88; "
        "stroke .36 .86 .4 -.5 .12; cut !.32 -.3, !.88 -.86, !.48 -.78, !.08 -.88"
    ),
    "feet.boots": (
        "stroke -.44 .86 -.44 .1 .12; cut -.7 .3, -.18 .3, -.2 -.35, .06 -.6, .02 -.88, -.7 -.88; "
        "stroke .36 .86 .36 .1 .12; cut .1 .3, .62 .3, .6 -.35, .86 -.6, .82 -.88, .1 -.88"
    ),
    "eye.stripe": "smooth !-.92 .26, -.3 .34, .4 .22, !.92 -.05, .4 -.24, -.3 -.3",
    "distractor.leaf": (
        "smooth !-.75 -.6, -.6 .2, -.1 .62, !.85 .72, .6 0, .1 -.5; stroke -.9 -.8 -.5 -.45 .06"
    ),
    "distractor.flower": "flower 5",
    "distractor.berry": "ellipse -.32 -.3 .42; ellipse .36 -.24 .4; ellipse .02 .3 .42",
    "distractor.mushroom": (
        "smooth !-.85 0, -.7 .7, 0 .95, .7 .7, !.85 0; smooth -.22 .2, .22 .2, .3 -.85, -.3 -.85"
    ),
    "distractor.butterfly": (
        "ellipse -.45 .36 .42; ellipse .45 .36 .42; ellipse -.36 -.38 .32; ellipse .36 -.38 .32; "
        "stroke 0 -.6 0 .6 .09"
    ),
    "distractor.star": "star 5",
    "distractor.feather": (
        "smooth -.5 -.5, -.4 .2, .1 .7, !.8 .86, .66 .2, .2 -.3; stroke -.88 -.88 -.3 -.25 .05"
    ),
    "distractor.kite": "polygon 0 .88, .6 .15, 0 -.88, -.6 .15",
    "distractor.heart": "ellipse -.38 .3 .44; ellipse .38 .3 .44; polygon -.76 .1, .76 .1, 0 -.85",
    "distractor.egg": "smooth -.6 -.35, -.45 .4, 0 .98, .45 .4, .6 -.35, .35 -.85, -.35 -.85",
    "scenery.pine": (
        "polygon -.5 .05, 0 .9, .5 .05; polygon -.65 -.4, 0 .5, .65 -.4; "
        "polygon -.78 -.78, 0 .1, .78 -.78; stroke 0 -.6 0 -.9 .1"
    ),
    "scenery.tree": "ellipse 0 .3 .52; ellipse -.42 .05 .36; ellipse .42 .05 .36; stroke 0 0 0 -.85 .11",
    "scenery.cactus": (
        "stroke 0 -.85 0 .65 .2; stroke -.5 .3 -.5 -.05 .13; stroke -.5 -.08 0 -.15 .13; "
        "stroke .5 .45 .5 .15 .13; stroke .5 .12 0 .05 .13"
    ),
    "scenery.cloud": (
        "ellipse -.42 -.1 .34; ellipse .02 .12 .46; ellipse .48 -.08 .34; stroke -.5 -.28 .55 -.28 .17"
    ),
    "scenery.reed": (
        "stroke -.35 -.9 -.2 .35 .05; stroke -.22 .2 -.15 .7 .11; stroke .25 -.9 .15 .1 .05; "
        "stroke .15 0 .12 .42 .11; stroke 0 -.9 .5 .2 .045 .01"
    ),
    "scenery.bush": ("ellipse -.5 -.25 .38; ellipse 0 0 .48; ellipse .5 -.25 .38; stroke -.6 -.5 .6 -.5 .18"),
    "disc": "ellipse 0 0 .88",
}
