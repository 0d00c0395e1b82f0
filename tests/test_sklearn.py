"""A GAN as scikit-learn's conventions have it, with that package and without."""

import builtins
import copy
import inspect
import warnings

import numpy as np
import pytest

from tinygan import GAN, data
from tinygan.training import METHODS

X = np.random.default_rng(0).normal(size=(40, 3)) * [1, 50, 0.01] + [0, 1000, -5]
SMALL = dict(steps=3, batch=8, width=8, depth=1, n_critic=1)


class Frame:
    """What a GAN sees of a DataFrame."""

    def __init__(self, array, columns):
        self.array, self.columns = array, columns

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


@pytest.fixture(scope="module")
def fitted():
    return GAN(**SMALL).fit(X)


# -------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("gan, text", [
    (GAN(), "GAN()"), (GAN(steps=10), "GAN(steps=10)"), (GAN("gan"), "GAN(method='gan')"),
    (GAN(lr=0.5, eager=True, device="cpu"), "GAN(lr=0.5, device='cpu', eager=True)"),
    (GAN(seed=0), "GAN()"), (GAN("vae", penalty=None), "GAN(method='vae')")])
def test_a_gan_is_shown_as_one_would_type_it(gan, text):
    assert repr(gan) == str(gan) == text and eval(text).get_params() == gan.get_params()


class Own(GAN):
    """A subclass with a signature of its own."""

    def __init__(self, steps=3, extra=("a", 1)):
        super().__init__("gan", **SMALL | {"steps": steps})
        self.extra = extra


def test_a_subclass_has_the_parameters_of_its_own_constructor():
    own = Own(extra=None)
    assert own.get_params() == {"steps": 3, "extra": None} and repr(own) == "Own(extra=None)"
    assert own.set_params(steps=2).fit(X).sample(4).shape == (4, 3)
    with pytest.raises(ValueError, match="no parameter 'lr'; choose steps, extra"):
        own.set_params(lr=1.0)


# ------------------------------------------------------------------------------ what fitting makes


def test_nothing_is_there_before_fitting_and_all_of_it_after():
    made = ["critic_", "data_", "feature_names_in_", "generator_", "history_", "images_",
            "n_features_in_", "run_", "source_"]
    assert not any(hasattr(GAN(), name) for name in made)
    gan = GAN(**SMALL).fit(Frame(X, ["a", "b", "c"]))
    assert [name for name, _ in inspect.getmembers(gan) if name[0] != "_" == name[-1]] == made
    assert gan.n_features_in_ == 3


@pytest.mark.parametrize("method", METHODS)
def test_the_members_of_every_method_can_be_listed(method):
    options = SMALL | {"depth": None if method == "mixture" else 1}
    del options["n_critic"]
    gan = GAN(method, **options | {"steps": 1}).fit(X)
    names = dict(inspect.getmembers(gan))
    assert ("critic_" in names) == hasattr(gan, "critic_") == (gan.run_.game.critic is not None)
    if "critic_" not in names:
        with pytest.raises(ValueError, match=f"method {method} has no critic"):
            gan.critic_


@pytest.mark.parametrize("settings, worse", [
    ({}, X[:, :0]), ({}, np.full((9, 2), np.nan)), ({"net": "conv", "depth": None}, X),
    ({"lr": -1}, X)])
def test_a_fit_that_fails_leaves_everything_as_it_was(settings, worse):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    for gan in (GAN(**SMALL), GAN(**SMALL).fit(images)):
        before = {**vars(gan), **settings}
        with pytest.raises(ValueError):
            gan.set_params(**settings).fit(worse)
        assert vars(gan) == before


# --------------------------------------------------------------------------------- what is given


@pytest.mark.parametrize("given, kind, says", [
    (X[:, 0], data.DataError, r"expected shape \(n, d\), got \(40,\); reshape\(-1, 1\)"),
    (X * 1j, data.DataError, "Complex data not supported"),
    (X[:1], data.DataError, r"1 sample\(s\)"), (X[:0], data.DataError, r"0 sample\(s\)"),
    (X[:, :0], data.DataError, r"0 feature\(s\) \(shape=\(40, 0\)\) while a minimum of 1 is"),
    (np.where(X > 0, X, np.nan), data.DataError, "is nan; remove or fill rows with NaN or inf"),
    (np.array([[1, {"a": 1}], [2, 3]], object), TypeError, "a string or a real number, not 'dict'"),
    (np.array([[1, "a"], [2, "3"]], object), data.DataError, "could not convert string to float"),
    (np.array([[1], [2, 3]], object), data.DataError, r"sequence|shape"),
    (np.array([[1, None], [2, 3]], object), data.DataError, "row 0, column 1 .* is nan"),
    ([[1], [2, 3]], data.DataError, "unequal length"), (3.0, data.DataError, r"shape \(\)"),
    (Frame(X, ["a", 1, "c"]), TypeError, "names of text; convert them: X.columns = X.columns.as")])
def test_what_cannot_be_used_is_refused_in_one_line(given, kind, says):
    with pytest.raises(kind, match=says) as caught:
        GAN(**SMALL).fit(given)
    assert "\n" not in str(caught.value)


def test_sparse_data_are_refused_by_name():
    class Sparse:
        def toarray(self):
            return X

    with pytest.raises(data.DataError, match=r"sparse data are not supported; give X.toarray\(\)"):
        GAN(**SMALL).fit(Sparse())


def test_numbers_that_are_objects_are_numbers(fitted):
    """A table of columns of several types becomes an array of objects."""
    for same in (X.astype(object), X.tolist(), Frame(X.astype(object), range(3))):
        assert np.array_equal(GAN(**SMALL).fit(same).sample(5), fitted.sample(5))


def test_labels_are_not_ignored_in_silence(fitted):
    with pytest.warns(UserWarning, match="^GAN.fit: y is not used.* leave it out, or fit one GAN "):
        gan = GAN(**SMALL).fit(X, np.zeros(40))
    assert np.array_equal(gan.sample(5), fitted.sample(5))
    with pytest.warns(UserWarning, match="^GAN.score: y is not used"):
        gan.score(X, np.zeros(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GAN(**SMALL).fit(X, None).score(X, None)
        GAN(**SMALL).fit(X, y=None)


# ----------------------------------------------------------------------------------------- scores


def test_better_samples_have_a_higher_score():
    gan = GAN(**SMALL).fit(X)
    close, far = gan.sample(300, seed=9), gan.sample(300, seed=9) + [0, 500, 0]
    assert 0 > gan.score(close) > gan.score(X) > gan.score(far)
    before = copy.deepcopy(gan)
    assert gan.score(X) == before.score(X) and isinstance(gan.score(X), float)


def test_a_score_does_not_depend_on_units_and_is_that_of_the_log_for_fresh_draws():
    scaled = GAN(**SMALL).fit(X * 8).score(X * 8)
    assert scaled == pytest.approx(GAN(**SMALL).fit(X).score(X), rel=1e-5)
    gan = GAN(**SMALL).fit("ring")
    assert gan.score("ring") == pytest.approx(-gan.history_["sliced_wasserstein"][-1], rel=0.05)


def test_images_have_scores():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    gan = GAN(**SMALL).fit(images)
    assert gan.n_features_in_ == 64 and -2 < gan.score(images[:5]) < 0
    assert gan.score(images[:5] / 255.0) == gan.score(images[:5])  # floats from 0 to 1
    with pytest.raises(ValueError, match=r"X holds points, but this GAN was trained on images"):
        gan.score(images.reshape(20, 64))


def test_a_file_has_the_score_of_its_array(fitted, tmp_path):
    np.save(tmp_path / "x.npy", X)
    assert fitted.score(tmp_path / "x.npy") == fitted.score(str(tmp_path / "x.npy"))
    assert fitted.score(tmp_path / "x.npy") == fitted.score(X) == fitted.score(data.points(X))


def test_a_score_needs_data_like_those_of_the_fit(fitted):
    with pytest.raises(ValueError, match="X has 2 features, but GAN is expecting 3 features as in"):
        fitted.score(X[:, :2])
    with pytest.raises(ValueError, match="not fitted yet"):
        GAN().score(X)


def test_names_of_columns_are_kept_and_compared():
    gan = GAN(**SMALL).fit(Frame(X, ["a", "b", "c"]))
    assert gan.feature_names_in_.tolist() == ["a", "b", "c"]
    assert gan.feature_names_in_.dtype == object
    for columns, says in ((["b", "a", "c"], "must be in the same order"),
                          (["a", "b", "d"], "unseen at fit time:\n- d\nFeature names seen at fit "
                                            "time, yet now missing:\n- c\n$")):
        with pytest.raises(ValueError, match=says):
            gan.score(Frame(X, columns))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        gan.score(X)
    assert not hasattr(gan.fit(X), "feature_names_in_")
    with pytest.warns(UserWarning, match="fitted without feature names"):
        gan.score(Frame(X, ["a", "b", "c"]))
    assert not hasattr(GAN(**SMALL).fit(Frame(X, [0, 1, 2])), "feature_names_in_")


def test_scikit_learn_is_not_needed(monkeypatch):
    there = builtins.__import__

    def missing(name, *arguments):
        if name.partition(".")[0] == "sklearn":
            raise ImportError("not installed")
        return there(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    gan = GAN(**SMALL).fit(X)
    assert repr(gan) and gan.score(X) < 0 and inspect.getmembers(gan)
    with pytest.raises(ImportError):
        gan.__sklearn_tags__()


# ------------------------------------------------------------------------- the real scikit-learn


@pytest.fixture
def sklearn():
    return pytest.importorskip("sklearn", minversion="1.6")


def test_a_gan_passes_the_checks_of_estimators(sklearn):
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # y is not used; GAN is not a BaseEstimator
        results = check_estimator(GAN(**SMALL), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert failed == {} and len(results) > 35
    assert sum(r["status"] == "passed" for r in results) >= len(results) - 1


@pytest.mark.filterwarnings("ignore:GAN.*y is not used")
def test_names_of_columns_pass_the_check_of_estimators(sklearn):
    pytest.importorskip("pandas")
    from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency

    check_dataframe_column_names_consistency("GAN", GAN(**SMALL))


def test_a_gan_can_be_cloned_and_asked_whether_it_is_fitted(sklearn, fitted):
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(fitted)
    unfitted = clone(fitted)
    assert unfitted.get_params() == fitted.get_params() and repr(unfitted) == repr(fitted)
    for gan in (GAN(), unfitted):
        with pytest.raises(NotFittedError):
            check_is_fitted(gan)
    with pytest.raises(data.DataError):
        unfitted.fit(X[:1])
    with pytest.raises(NotFittedError):
        check_is_fitted(unfitted)


@pytest.mark.filterwarnings("error")
def test_a_gan_works_in_pipelines_and_searches(sklearn, fitted):
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import estimator_html_repr

    pipeline = make_pipeline(StandardScaler(), GAN(**SMALL))
    assert pipeline.fit(X).score(X) < 0 and "GAN(steps=3, " in repr(pipeline)
    search = GridSearchCV(pipeline, {"gan__lr": [1e-6, 1e-2]}, cv=2).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_score_ == scores.max() and scores[0] != scores[1]
    assert search.best_estimator_[-1].sample(4).shape == (4, 3)
    for shown in (fitted, pipeline, search):
        assert "GAN(" in estimator_html_repr(shown)


def test_a_gan_trains_in_the_workers_of_joblib(sklearn):
    """Which get large arrays as files that they cannot write to."""
    joblib = pytest.importorskip("joblib")
    gan = GAN(**SMALL)
    gan.prepare(np.random.default_rng(0).normal(size=(200_000, 2)))  # over a megabyte
    workers = joblib.Parallel(n_jobs=2, backend="loky")
    there = workers(joblib.delayed(trained)(gan.run_) for _ in range(2))
    assert there == [trained(gan.run_)] * 2


def trained(run):
    """The bits that a training makes of a run."""
    for _ in run.train():
        pass
    return [a.tobytes() for name, a in run.state_dict()[0].items() if name != "history"]
