from rsae.support.errors import did_you_mean


def test_a_near_name_or_the_options():
    assert did_you_mean("sead", ["seed", "steps"]) == "; did you mean 'seed'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; choose from a, b"


def test_hundreds_of_options_are_not_all_listed():
    told = did_you_mean("zzz", [f"option{i:03}" for i in range(300)])
    assert told.endswith("option024 and 275 more")
