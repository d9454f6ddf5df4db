"""Porter's stemmer."""

from __future__ import annotations

from repro_rl.envs.webshop.search.porter import stem

# Word -> stem, one or more for every rule of Porter's five steps; printed by Lucene too.
STEMS = """
caresses caress, ponies poni, caress caress, cats cat, feed feed, agreed agre, plastered plaster, bled
bled, motoring motor, sing sing, conflated conflat, troubled troubl, sized size, hopping hop, tanned tan,
falling fall, hissing hiss, fizzed fizz, failing fail, filing file, happy happi, sky sky, relational
relat, conditional condit, rational ration, valenci valenc, hesitanci hesit, digitizer digit, conformabli
conform, radicalli radic, differentli differ, vileli vile, analogousli analog, vietnamization vietnam,
predication predic, operator oper, feudalism feudal, decisiveness decis, hopefulness hope, callousness
callous, formaliti formal, sensitiviti sensit, sensibiliti sensibl, apologi apolog, triplicate triplic,
formative form, formalize formal, electriciti electr, electrical electr, hopeful hope, goodness good,
revival reviv, allowance allow, inference infer, airliner airlin, gyroscopic gyroscop, adjustable adjust,
defensible defens, irritant irrit, replacement replac, adjustment adjust, dependent depend, adoption
adopt, homologou homolog, communism commun, activate activ, angulariti angular, homologous homolog,
effective effect, bowdlerize bowdler, probate probat, rate rate, cease ceas, controll control, roll roll,
yyy yyi, ions ion, ing ing, ed ed, sses ss, ies i
"""


def test_stems() -> None:
    for pair in STEMS.replace("\n", " ").split(", "):
        word, expected = pair.split()
        assert stem(word) == expected, word
    assert stem("") == ""
    assert stem("is") == "is"
    assert stem("as") == "as"
