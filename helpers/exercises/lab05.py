"""Exercises of lab 05: ReLUs out of place, three maps at one layer, channels, colours, guided backprop, ranks.

Two answers cannot be compared by what they return. The check of `out_of_place` looks at the model afterwards and
runs it; that of `guided_backprop` opens the block, runs a small net in it, and looks at what is left afterwards,
also when an error ends the block, as the checks of lab 03 do.

Inputs are chosen so that mistakes show: modules are nested, shared, of several types, some of them out of place from
the start; ReLUs work in place and not; maps have both signs, some are blank, tiny or constant, and values tie; there
is one image as well as several, in both precisions.

Where a mistake was seen: "source" is the code that the lab's methods come from, "peer" another course or library,
"trial" an answer to this or a like exercise, given while it was tried, often by ourselves in the part of a student.
"""

import copy
import warnings
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import kendalltau, rankdata, spearmanr
from torch import nn
from torchvision.models import VGG16_Weights
from torchvision.transforms import functional as pictures

from helpers import hooks, vgg_steps

from . import Complaint, Exercise, Mistake
from ._blocks import expect_errors_to_pass, expect_state, is_block, opened, state_of, with_random_weights

# 5.1 -------------------------------------------------------------------------------------------------------


def _photo_cases(rng):
    def preset(crop, resize):
        mean, std = rng.uniform(0.2, 0.6, 3), rng.uniform(0.1, 0.4, 3)
        kind = VGG16_Weights.IMAGENET1K_V1.transforms
        return kind(crop_size=crop, resize_size=resize, mean=tuple(mean), std=tuple(std))

    def photo(height, width):
        blocks = rng.uniform(-200, 450, size=(height // 6 + 1, width // 6 + 1, 3))  # many black or white
        pixels = np.kron(blocks, np.ones((6, 6, 1)))[:height, :width]
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    return [(photo(20, 33), preset(8, 11)), (photo(40, 26), preset(10, 10)), (photo(17, 17), preset(6, 9))]


def _use_photo(answer, photo, preprocess):
    result = answer(photo, preprocess)
    shown = result[0] if isinstance(result, tuple | list) and result else None
    if isinstance(shown, np.ndarray) and shown.dtype.kind == "f" and shown.size:
        excess = max(-shown.min(), shown.max() - 1)
        if 0 < excess < 1e-4:
            raise Complaint("What is shown leaves [0, 1] by a rounding error, and cannot be drawn.")
    return result


def _shown(change=lambda shown, seen, photo, preprocess: shown, seen_as=lambda seen, photo, preprocess: seen):
    """An answer to 5.1 with another picture to show, or another one to see."""

    def answer(photo, preprocess):
        shown, seen = vgg_steps.shown_and_seen(photo, preprocess)
        return change(shown, seen, photo, preprocess), seen_as(seen, photo, preprocess)

    return answer


def _pixels(photo):
    return np.asarray(photo, dtype=np.float32) / 255


def _middle_square(photo):
    return pictures.center_crop(photo, [min(photo.size)] * 2)


def _small(photo, seen):
    return photo.resize(seen.shape[:1:-1], Image.Resampling.BILINEAR)


def _undone(undo):
    """Show `undo(seen, mean, std)`, where those two are columns."""

    def change(shown, seen, photo, preprocess):
        mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
        return undo(seen, mean, std)[0].permute(1, 2, 0).numpy()

    return change


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _by_imagenet(shown, seen, photo, preprocess):
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (seen * std + mean)[0].permute(1, 2, 0).numpy()


def _undone_in_place(photo, preprocess):
    seen = preprocess(photo)[None]
    for channel, mean, std in zip(seen[0], preprocess.mean, preprocess.std, strict=True):
        channel.mul_(std).add_(mean)
    return seen[0].permute(1, 2, 0).numpy(), seen


def _of_the_whole(crop):
    """Feed the model `crop(photo)`, prepared without its own cropping."""

    def seen_as(seen, photo, preprocess):
        picture = pictures.to_tensor(_small(crop(photo), seen))
        return pictures.normalize(picture, preprocess.mean, preprocess.std)[None]

    return seen_as


def _swapped(photo, preprocess):
    return vgg_steps.shown_and_seen(photo, preprocess)[::-1]


def _shown_by_channels(photo, preprocess):
    seen = preprocess(photo)
    shown = [channel * s + m for channel, m, s in zip(seen, preprocess.mean, preprocess.std, strict=True)]
    return np.stack([channel.clamp(0, 1).numpy() for channel in shown], axis=-1), seen.unsqueeze(0)


def _shown_by_normalising_back(photo, preprocess):
    seen = preprocess(photo)
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    back = pictures.normalize(seen, list(-mean / std), list(1 / std))
    return back.numpy().transpose(1, 2, 0).clip(0, 1), seen[None]


def _shown_by_numpy(photo, preprocess):
    seen = torch.stack([preprocess(photo)])
    shown = np.moveaxis(seen.numpy()[0], 0, 2) * preprocess.std + preprocess.mean
    return np.clip(shown, 0, 1), seen


photos = Exercise(
    key="5.1",
    title="what is shown is what is seen",
    reference=vgg_steps.shown_and_seen,
    cases=_photo_cases,
    use=_use_photo,
    mistakes=(
        Mistake(
            _shown(lambda shown, seen, photo, preprocess: _pixels(_small(_middle_square(photo), seen))),
            "You crop the photo for display yourself, and the model's own cropping is another one (it resizes first, and cuts off a "
            "border): make `shown` from `seen`.",
            "source",
        ),
        Mistake(
            _shown(lambda shown, seen, photo, preprocess: _pixels(_small(photo, seen))),
            "You show the whole photo, squeezed into a square, while the model sees the middle of it: make `shown` from `seen`.",
            "peer",
        ),
        Mistake(
            _shown(lambda shown, seen, photo, preprocess: _pixels(photo)),
            "You show the photo as it came, while the model sees the middle of it: make `shown` from `seen`.",
            "source",
        ),
        Mistake(
            _shown(
                lambda shown, seen, photo, preprocess: _pixels(_small(_middle_square(photo), seen)),
                _of_the_whole(lambda photo: photo),
            ),
            "You show a square of the photo and feed the model all of it, squeezed: the map then lies on a picture that the model "
            "never saw.",
            "source",
        ),
        Mistake(
            _shown(
                lambda shown, seen, photo, preprocess: _pixels(_small(_middle_square(photo), seen)),
                _of_the_whole(_middle_square),
            ),
            "You prepare the photo yourself; it is the same on both sides, but not what the model was trained with: let `preprocess` "
            "do it.",
            "trial",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: seen)),
            "You show normalised values: multiply by the deviation and add the mean.",
            "peer",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: seen * std + mean)),
            "Rounding carries black below 0 or white above 1, and a picture has to stay in [0, 1]: end with `.clamp(0, 1)`.",
            "trial",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: (seen + mean) * std)),
            "You add first and multiply then: Normalize subtracts the mean first, so it has to be added last.",
            "trial",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: (seen - mean) / std)),
            "You normalise a second time: multiply by the deviation, then add the mean.",
            "trial",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: seen * std)),
            "You forget to add the mean.",
            "trial",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: seen + mean)),
            "You forget to multiply by the deviation, before the mean is added.",
            "trial",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: (seen - seen.min()) / (seen.max() - seen.min()))),
            "You stretch what is seen to [0, 1], with other colours than the photo's: undo Normalize with `preprocess.mean` and "
            "`preprocess.std`.",
            "peer",
        ),
        Mistake(
            _shown(_undone(lambda seen, mean, std: seen.clamp(0, 1))),
            "You cut normalised values off at 0 and 1: undo Normalize first.",
            "peer",
        ),
        Mistake(
            _shown(_by_imagenet),
            "You undo Normalize with ImageNet's numbers, and a model may have others: use `preprocess.mean` and `preprocess.std`.",
            "peer",
        ),
        Mistake(
            _undone_in_place,
            "The model gets the picture for display (has Normalize been undone in place?): it wants the normalised one, so let `shown` "
            "be a new tensor.",
            "trial",
        ),
        Mistake(
            _shown(lambda shown, *_: shown.transpose(2, 0, 1)),
            "`shown` has its channels first: pictures are drawn as (h, w, 3), so end with `.permute(1, 2, 0)`.",
            "trial",
        ),
        Mistake(
            _shown(lambda shown, *_: shown.transpose(1, 0, 2)),
            "`shown` lies on its side: `.permute(2, 1, 0)` and `.T` swap height and width, `.permute(1, 2, 0)` does not.",
            "trial",
        ),
        Mistake(
            _shown(lambda shown, *_: shown[..., ::-1]),
            "Red and blue have changed places: leave the channels in their order.",
            "peer",
        ),
        Mistake(
            _shown(lambda shown, *_: shown[None]),
            "`shown` is one picture, (h, w, 3): take the first of the batch.",
            "trial",
        ),
        Mistake(
            _shown(lambda shown, *_: 255 * shown),
            "`shown` runs from 0 to 255: it should run from 0 to 1.",
            "trial",
        ),
        Mistake(
            _shown(seen_as=lambda seen, *_: seen[0]),
            "`seen` has no axis for the images: the model takes a batch, here of one, `preprocess(photo)[None]`.",
            "trial",
        ),
        Mistake(
            _shown(seen_as=lambda seen, photo, preprocess: torch.tensor(_pixels(_middle_square(photo)))),
            "Your model gets the photo's pixels without `preprocess`: it wants (1, 3, h, w), resized, cropped and normalised.",
            "trial",
        ),
        Mistake(
            _swapped,
            "The two have changed places: first what is shown, then what is seen.",
            "trial",
        ),
    ),
    verified="What is shown are the very pixels that the model sees, of photos upright and lying, with the model's own size and colours.",
    hints=(
        "Nothing has to be cropped by hand: let the model's own `preprocess` make what it sees, and undo in it what the eye cannot "
        "use.",
        "`seen = preprocess(photo)[None]`; then multiply by `preprocess.std`, add `preprocess.mean` (exercise 4.1, `denormalise`), "
        "keep the result between 0 and 1, take the one picture of the batch, `.permute(1, 2, 0)` and `.numpy()`.",
    ),
    alternatives=(_shown_by_channels, _shown_by_normalising_back, _shown_by_numpy),
)
# 5.2 -------------------------------------------------------------------------------------------------------


class _Mixed(nn.Module):
    """2 x 6 x 5 images -> 3 logits; one ReLU stands in two places and in a block, another works out of place."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.relu = nn.ReLU(inplace=True)
        self.again = self.relu
        self.block = nn.ModuleDict({"conv": nn.Conv2d(6, 4, 3), "act": self.relu})
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.5, inplace=True),
            nn.Linear(48, 7),
            nn.ReLU(),
            nn.Sequential(nn.Linear(7, 7), nn.ReLU6(inplace=True), nn.Linear(7, 3)),
        )

    def forward(self, x):
        x = self.again(self.relu(self.features(x) + 0.5) - 0.3)
        return self.classifier(self.block["act"](self.block["conv"](x)))


class _Plain(nn.Module):
    """2 x 6 x 5 images -> 3 logits, by other names than VGG's."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 5, 3, padding=1), nn.ReLU(inplace=True)) for c in (2, 5)
        )
        self.hidden = nn.Linear(150, 6)
        self.rectify = nn.ReLU(inplace=True)
        self.logits = nn.Linear(6, 3)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.logits(self.rectify(self.hidden(x.flatten(1))))


def _made(rng, build, dtype):
    with torch.random.fork_rng(devices=()):  # layers draw from the global generator when they are made
        net = build()
    return with_random_weights(rng, net, dtype)


def _out_of_place_cases(rng):
    mixed, plain = _made(rng, _Mixed, torch.float32).eval(), _made(rng, _Plain, torch.float64)
    plain.train().stages[0].eval()
    images = torch.tensor(rng.normal(size=(3, 2, 6, 5)))
    return [(mixed, images.float()), (plain, images[:1])]


def _named(model):
    """name -> module, once for every place at which a module stands."""
    return dict(model.named_modules(remove_duplicate=False))


def _kind(module):
    return type(module).__name__


def _use_out_of_place(answer, model, images):
    """What the changed model computes, and what a hook keeps of its convolutions."""
    before = _named(model)
    kinds = {name: _kind(module) for name, module in before.items()}
    result = answer(model)
    if not isinstance(result, nn.Module):
        return result
    if result is not model:
        what = "a copy of the model" if type(result) is type(model) else f"a new `{_kind(result)}`"
        raise Complaint(f"It returns {what}: change the model that comes in, and return that.")
    now = _named(model)
    if now.keys() != before.keys():
        raise Complaint(f"The model has {len(now)} modules now; before, it had {len(before)}.")
    for name, module in now.items():
        if _kind(module) != kinds[name]:
            raise Complaint(f"`{name}` was of type {kinds[name]} and is of type {_kind(module)} now.")
    working = [f"`{name}` ({kinds[name]})" for name, module in now.items() if getattr(module, "inplace", 0)]
    if working:
        raise Complaint(f"These modules work in place: {', '.join(working)}.")
    for name, module in now.items():
        if module is not before[name]:
            raise Complaint(f"`{name}` ({kinds[name]}) is another module than before.")
    with ExitStack() as stack:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        kept = [stack.enter_context(hooks.keep_outputs(module)) for module in convolutions]
        logits = model(images)
    return logits, tuple(outputs[0] for outputs in kept)


def _out_of_place_by_recursion(wanted, replace):
    """Go through the children at every depth, and put `replace(child)` into the place of those that are `wanted`."""

    def answer(model):
        for name, child in model.named_children():
            if wanted(child):
                setattr(model, name, replace(child))
            else:
                answer(child)
        return model

    return answer


def _is_relu(module):
    return isinstance(module, nn.ReLU)


def _works_in_place(module):
    return getattr(module, "inplace", False)


def _switch_off(module):
    module.inplace = False
    return module


def _switched(where, when=_works_in_place):
    """Set `inplace = False` in those of the modules `where(model)` that `when` picks."""

    def answer(model):
        for module in where(model):
            if when(module):
                module.inplace = False
        return model

    return answer


def _on_a_copy(model):
    return hooks.out_of_place(copy.deepcopy(model))


def _rebuilt(model):
    return nn.Sequential(*hooks.out_of_place(model).children())


def _toggled(model):
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = not module.inplace
    return model


def _only_one(model):
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
            return model
    return model


def _by_dotted_names(model):
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.ReLU):
            setattr(model, name, nn.ReLU(inplace=False))
    return model


def _by_dotted_names_at_once(model):
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            setattr(model, name, nn.ReLU(inplace=False))
    return model


def _into_sequentials_only(model):
    for child in model.children():
        if isinstance(child, nn.Sequential):
            _into_sequentials_only(child)
        elif getattr(child, "inplace", False):
            child.inplace = False
    return model


def _and_then(change):
    def answer(model):
        change(hooks.out_of_place(model))
        return model

    return answer


def _freeze(model):
    model.requires_grad_(False)


def _replaced(wanted, new, parents=lambda model: model.modules()):
    """Put `new(module)` into every place inside `parents(model)` where a module stands that is `wanted`."""

    def answer(model):
        for parent in list(parents(model)):
            for name, module in list(parent._modules.items()):
                if wanted(module):
                    setattr(parent, name, new(module))
        return model

    return answer


def _copied_out_of_place(module):
    return _switch_off(copy.copy(module))


def _same_mode(module, new):
    return new.train(module.training)


def _out_of_place_by_apply(model):
    def switch_off(module):
        if hasattr(module, "inplace"):
            module.inplace = False

    return model.apply(switch_off)


def _out_of_place_by_children(model):
    if hasattr(model, "inplace"):
        model.inplace = False
    for child in model.children():
        _out_of_place_by_children(child)
    return model


def _out_of_place_by_stack(model):
    stack = [model]
    while stack:
        module = stack.pop()
        stack.extend(module.children())
        try:
            module.inplace = module.inplace and False
        except AttributeError:
            continue
    return model


in_place = Exercise(
    key="5.2",
    title="modules that work out of place",
    reference=hooks.out_of_place,
    cases=_out_of_place_cases,
    use=_use_out_of_place,
    mistakes=(
        Mistake(
            lambda model: model,
            "Nothing in the model has changed. (`module = nn.ReLU()` in a loop only gives the name `module` to something "
            "else, and what a function given to `apply` returns is thrown away: set `module.inplace = False`.)",
            "trial",
        ),
        Mistake(
            _switched(lambda model: model.children()),
            "You look at the model's direct children only: `model.modules()` gives the modules at every depth.",
            "peer",
        ),
        Mistake(
            _switched(lambda model: [m for child in model.children() for m in child.children()]),
            "You go down exactly two levels: `model.modules()` gives the modules at every depth.",
            "trial",
        ),
        Mistake(
            _switched(lambda model: model.features),
            "You change `model.features` only, and not every model has that: `model.modules()` gives all modules, whatever "
            "their names.",
            "peer",
        ),
        Mistake(
            _switched(lambda model: model.features, _is_relu),
            "You change the `nn.ReLU` in `model.features` only, and not every model has that: go through `model.modules()`, and ask "
            '`getattr(module, "inplace", False)`, whatever the name and the type.',
            "peer",
        ),
        Mistake(
            _replaced(_is_relu, lambda module: nn.ReLU(), parents=lambda model: [model.features]),
            "You replace the ReLUs in `model.features` only, and not every model has that: go through `model.modules()`, and set "
            "`module.inplace = False`.",
            "peer",
        ),
        Mistake(
            _switched(lambda model: model.modules(), lambda module: module.inplace),
            'Not every module has an attribute `inplace`: ask `getattr(module, "inplace", False)`.',
            "trial",
        ),
        Mistake(
            _into_sequentials_only,
            "You go down into `nn.Sequential` only: modules stand inside blocks, lists and dictionaries too. `model.modules()` "
            "finds them all.",
            "trial",
        ),
        Mistake(
            _switched(lambda model: model.modules(), _is_relu),
            "You change `nn.ReLU` only: others work in place too, such as `nn.LeakyReLU` and `nn.Dropout`. Ask "
            '`getattr(module, "inplace", False)`, whatever the type.',
            "source",
        ),
        Mistake(
            _switched(lambda model: model.modules(), lambda module: "ReLU" in type(module).__name__),
            'You look for "ReLU" in the name of the type: `nn.Dropout` may work in place too. Ask '
            '`getattr(module, "inplace", False)`.',
            "trial",
        ),
        Mistake(
            lambda model: _switched(
                lambda model: [m for n, m in model.named_modules() if "relu" in n.lower()]
            )(model),
            'You look for "relu" in the names of the modules; they can have any name, and in VGG they have numbers. Ask '
            '`getattr(module, "inplace", False)`.',
            "trial",
        ),
        Mistake(
            _out_of_place_by_recursion(_is_relu, lambda child: nn.ReLU(inplace=False)),
            "Replacing every `nn.ReLU` by a new one goes wrong three times here: new modules start in training mode, other types "
            "stay in place, and `named_children` gives a module that stands twice only once. Set `module.inplace = False` "
            "instead.",
            "source",
        ),
        Mistake(
            _out_of_place_by_recursion(_is_relu, lambda child: _same_mode(child, nn.ReLU(inplace=False))),
            "You keep the mode, but other types than `nn.ReLU` stay in place, and `named_children` gives a module that stands twice "
            "only once. Set `module.inplace = False` in every module that has it.",
            "source",
        ),
        Mistake(
            _out_of_place_by_recursion(_works_in_place, _copied_out_of_place),
            "One of the modules stands in two places of the same parent, and `named_children` gives it only once, so it stays at "
            "the second. Set `module.inplace = False` instead of replacing it.",
            "trial",
        ),
        Mistake(
            _replaced(_is_relu, lambda module: nn.ReLU()),
            "Your new ReLUs are in training mode, whatever the old ones were in, and other types stay in place: set "
            "`module.inplace = False` instead of replacing anything.",
            "trial",
        ),
        Mistake(
            _replaced(_works_in_place, lambda module: type(module)()),
            "You put new modules into the place of the old ones: they have lost their mode and their settings (a slope, a rate), and "
            "whoever holds a layer, as in `relu = model.features[29]`, holds one that runs no more. Set `module.inplace = False`.",
            "trial",
        ),
        Mistake(
            _replaced(_works_in_place, _copied_out_of_place),
            "You put new modules into the place of the old ones, so that whoever holds a layer, as in `relu = model.features[29]`, "
            "holds one that runs no more. Set `module.inplace = False` in the old ones.",
            "source",
        ),
        Mistake(
            _replaced(_works_in_place, lambda module: _same_mode(module, nn.ReLU())),
            "You turn every module that works in place into a ReLU, a dropout and a leaky ReLU as well: leave the modules, and "
            "set `module.inplace = False`.",
            "trial",
        ),
        Mistake(
            _replaced(_works_in_place, lambda module: nn.ReLU()),
            "You turn every module that works in place into a new ReLU, a dropout and a leaky ReLU as well: leave the modules, and "
            "set `module.inplace = False`.",
            "trial",
        ),
        Mistake(
            _replaced(_works_in_place, lambda module: nn.Identity()),
            "You take the modules out: they are to do the same as before, only out of place.",
            "trial",
        ),
        Mistake(
            _by_dotted_names,
            '`setattr(model, "features.1", ...)` adds a module with a dot in its name and leaves the old one where it is. Set '
            "`module.inplace = False`.",
            "peer",
        ),
        Mistake(
            _by_dotted_names_at_once,
            '`setattr` with a name such as "features.1" adds a module while the loop runs over the modules: replace nothing, and '
            "set `module.inplace = False`.",
            "trial",
        ),
        Mistake(
            _on_a_copy,
            "You change a copy: whoever hooked a layer of the model itself gains nothing. Leave out `deepcopy`.",
            "peer",
        ),
        Mistake(
            _rebuilt,
            "A new `nn.Sequential` of the children is another model, without what stands in `forward`: change the model that "
            "comes in, and return that.",
            "peer",
        ),
        Mistake(
            _toggled,
            "You switch every module to the opposite, so that those that were out of place work in place now: set "
            "`inplace = False`.",
            "trial",
        ),
        Mistake(
            _only_one,
            "Only the first module is changed: `return model` has to stand after the loop.",
            "trial",
        ),
        Mistake(
            _and_then(nn.Module.eval),
            "You call `model.eval()` as well: leave every module in the mode that it has.",
            "peer",
        ),
        Mistake(
            _and_then(nn.Module.train),
            "You call `model.train()` as well: leave every module in the mode that it has.",
            "trial",
        ),
        Mistake(
            _and_then(_freeze),
            "You freeze the parameters as well: change nothing but `inplace`.",
            "trial",
        ),
    ),
    verified="At every depth, in every type and place, nothing works in place any more; modes, settings and results are as before.",
    hints=(
        "It takes no new modules: a module that works in place says so in an attribute, and that can be changed. Which method "
        "gives the modules at every depth, each of them once?",
        'For each `module in model.modules()`: if `getattr(module, "inplace", False)`, set `module.inplace = False`. Return the '
        "model after the loop.",
    ),
    alternatives=(
        _out_of_place_by_apply,
        _out_of_place_by_children,
        _out_of_place_by_stack,
    ),
)


# 5.3 -------------------------------------------------------------------------------------------------------


def _channel_cases(rng):
    def gradients(*shape):
        means = np.resize([1.0, -1.3], (shape[1], 1, 1)) * rng.uniform(0.2, 1, size=(*shape[:2], 1, 1))
        spikes = (
            rng.normal(size=shape) ** 3
        )  # so that the largest value is seldom in the channel of largest mean
        return torch.tensor(means + spikes - spikes.mean(axis=(2, 3), keepdims=True))

    return [
        (gradients(4, 9, 3, 5).float(), 3),
        (gradients(1, 6, 4, 3), 2),
        (gradients(3, 5, 5, 2), 5),
        (gradients(2, 11, 2, 3).float(), 1),
        (gradients(5, 8, 3, 4), 4),
    ]


def _channels(measure=lambda g: g.mean(dim=(2, 3)), pick=None):
    """An answer to 5.3 with another measure of a channel, (B, C, h, w) -> (B, C), or another choice."""

    def both_ends(measured, k):
        order = measured.argsort(dim=1, descending=True, stable=True)
        return order[:, :k], order.flip(1)[:, :k]

    return lambda gradients, k: (pick or both_ends)(measure(gradients), k)


def _ends(change):
    return lambda gradients, k: change(*vgg_steps.extreme_channels(gradients, k))


def _both_topk(means, k, dim=-1, pick=lambda top: top.indices):
    return tuple(pick(means.topk(k, dim=dim, largest=largest)) for largest in (True, False))


def _channels_of_flat_batch(means, k):
    flat = means.flatten()
    return tuple(flat.topk(k, largest=largest).indices.expand(len(means), k) for largest in (True, False))


def _channels_by_sort(gradients, k):
    order = torch.sort(gradients.flatten(2).mean(dim=2), dim=1).indices
    return order[:, -k:].flip(1), order[:, :k]


def _channels_by_loop(gradients, k):
    largest, smallest = [], []
    for image in gradients:
        means = [float(channel.mean()) for channel in image]
        order = sorted(range(len(means)), key=means.__getitem__)
        largest.append(order[::-1][:k])
        smallest.append(order[:k])
    return torch.tensor(largest), torch.tensor(smallest)


def _channels_by_negation(gradients, k):
    totals = gradients.sum(dim=(-1, -2))
    return [torch.topk(sign * totals, k, dim=-1)[1] for sign in (1, -1)]


channels = Exercise(
    key="5.3",
    title="the channels at both ends",
    reference=vgg_steps.extreme_channels,
    cases=_channel_cases,
    mistakes=(
        Mistake(
            _channels(lambda g: g.abs().mean(dim=(2, 3))),
            "You take absolute values before the mean: a channel with strong gradients of both signs is none of the extremes.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.mean(dim=(2, 3)).abs()),
            "You order by the absolute value of the mean, so that channels against the class come first too, and those with no "
            "say last: keep the sign.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.amax(dim=(2, 3))),
            "You order by the largest gradient in a channel: the weight of Grad-CAM is the mean.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: (g**2).mean(dim=(2, 3))),
            "You order by the mean square, which has no sign: take the mean of the gradient.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.clamp(min=0).mean(dim=(2, 3))),
            "You drop negative gradients before the mean: they count too.",
            "peer",
        ),
        Mistake(
            _channels(lambda g: g.flatten(2).median(dim=2).values),
            "You order by the median: the weight of Grad-CAM is the mean.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.mean(dim=(0, 2, 3)).expand(g.shape[:2])),
            "You average over the images too, so that all get the same channels: average over `dim=(2, 3)`.",
            "source",
        ),
        Mistake(
            _channels(lambda g: g[:1].mean(dim=(2, 3)).expand(g.shape[:2])),
            "All images get the channels of the first: rank each image's channels for itself, with `dim=1`.",
            "source",
        ),
        Mistake(
            lambda gradients, k: vgg_steps.extreme_channels(gradients[:1], k),
            "You look at the first image only: there is one row for every image.",
            "source",
        ),
        Mistake(
            _channels(pick=_channels_of_flat_batch),
            "You rank the channels of all images in one list, and the numbers run over the whole batch: give `dim=1`.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.mean(dim=1)),
            "You average over the channels, but it is channels that are to be ranked: average over the positions, `dim=(2, 3)`.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.mean(dim=(1, 2))),
            "You average over channels and rows, so that columns are ranked: average over the positions, `dim=(2, 3)`.",
            "trial",
        ),
        Mistake(
            lambda gradients, k: _both_topk(gradients.mean(dim=(0, 2, 3)), k),
            "You average over the images too, and there is one row for all: average over `dim=(2, 3)`.",
            "source",
        ),
        Mistake(
            lambda gradients, k: _both_topk(gradients.mean(dim=3), k),
            "You average over one axis of the map, and there are two: `dim=(2, 3)`.",
            "trial",
        ),
        Mistake(
            lambda gradients, k: _both_topk(gradients.mean(dim=(2, 3)), k, dim=0),
            "`dim=0` ranks the images: channels are ranked along `dim=1`.",
            "trial",
        ),
        Mistake(
            lambda gradients, k: _both_topk(gradients.mean(dim=(2, 3)), k, pick=tuple),
            "`topk` and `sort` give a pair, values and indices: take `.indices`.",
            "trial",
        ),
        Mistake(
            _ends(lambda largest, smallest: (smallest, largest)),
            "The two have changed places (is your sorting ascending?): the largest means come first.",
            "trial",
        ),
        Mistake(
            _ends(lambda largest, smallest: (largest, smallest.flip(1))),
            "Your second list ends with the most negative channel (as the end of a descending order does): it should begin with it.",
            "trial",
        ),
        Mistake(
            _ends(lambda largest, smallest: (largest.flip(1), smallest)),
            "Your first list ends with the largest mean (as the end of an ascending order does): it should begin with it.",
            "trial",
        ),
        Mistake(
            _ends(lambda largest, smallest: (largest.flip(1), smallest.flip(1))),
            "Both lists run the wrong way: the most extreme channel comes first in each.",
            "trial",
        ),
        Mistake(
            _ends(lambda largest, smallest: (largest.sort().values, smallest.sort().values)),
            "Your lists are sorted by channel number: the most extreme channel comes first in each.",
            "trial",
        ),
        Mistake(
            _channels(
                pick=lambda means, k: (
                    means.topk(k, dim=1).values,
                    means.topk(k, dim=1, largest=False).values,
                )
            ),
            "You return the means: the numbers of the channels are wanted, `.indices` of what `topk` gives.",
            "trial",
        ),
        Mistake(
            _channels(
                pick=lambda means, k: (
                    means.topk(k, dim=1).indices,
                    means.abs().topk(k, dim=1, largest=False).indices,
                )
            ),
            "Your second list has the means nearest to 0: the smallest are the most negative ones.",
            "trial",
        ),
        Mistake(
            _channels(
                pick=lambda means, k: (
                    means.topk(k, dim=1).indices,
                    means.abs().topk(k, dim=1).indices,
                )
            ),
            "Your second list has the means that are largest without their sign: the smallest are the most negative ones.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g[:, :, g.shape[2] // 2, g.shape[3] // 2]),
            "You look at one position of each channel: the weight of Grad-CAM is the mean over all of them.",
            "trial",
        ),
        Mistake(
            _channels(lambda g: g.std(dim=(2, 3))),
            "You order by the spread of the gradient in a channel: the weight of Grad-CAM is its mean.",
            "trial",
        ),
    ),
    verified="For each image its own channels, the most positive and the most negative first, with k from one to all of them.",
    hints=(
        "First one number for every image and channel: the mean of the gradient over the positions. Then a ranking in each row, "
        "once from the top and once from the bottom.",
        "`means = gradients.mean(dim=(2, 3))`, and `means.topk(k, dim=1).indices`; with `largest=False`, `topk` starts at the "
        "other end.",
    ),
    alternatives=(_channels_by_sort, _channels_by_loop, _channels_by_negation),
)


# 5.4 -------------------------------------------------------------------------------------------------------


def _signed_cases(rng):
    maps = rng.normal(size=(6, 5, 3))
    maps[0] *= 7
    maps[1] = -np.abs(maps[1]) - 0.5  # nothing positive, and not near 0
    maps[2] *= 1e-9
    maps[3] = 0
    maps[4] = np.abs(maps[4]) + 0.2
    maps[5] = 0.6 * maps[5] + 2 * maps[5] * (maps[5] < 0)  # negative values reach farther
    return [
        (maps,),
        (rng.permutation(maps).astype(np.float32),),
        (maps[:1, :, :2],),
        (np.stack([np.full((2, 4), -3.0), rng.normal(size=(2, 4))]),),
        (np.zeros((1, 3, 2), np.float32),),
    ]


def _divided(by, shift=lambda maps: maps):
    """An answer to 5.4 that divides `shift(maps)` by `by(maps)`, guarded where that is 0."""

    def answer(maps):
        moved, divisor = shift(maps), by(maps)
        return np.where(divisor > 0, moved / np.where(divisor > 0, divisor, 1), 0).astype(maps.dtype)

    return answer


def _extent(maps):
    return np.abs(maps).max(axis=(1, 2), keepdims=True)


def _least(maps):
    return maps.min(axis=(1, 2), keepdims=True)


def _most(maps):
    return maps.max(axis=(1, 2), keepdims=True)


def _plain_division(divisor):
    def answer(maps):
        with np.errstate(all="ignore"):
            return maps / divisor(maps)

    return answer


def _min_max_unguarded(scale, shift):
    def answer(maps):
        with np.errstate(all="ignore"):
            return scale * (maps - _least(maps)) / (_most(maps) - _least(maps)) + shift

    return answer


def _in_the_place_of_the_maps(maps):
    maps /= np.where(_extent(maps) > 0, _extent(maps), 1)
    return maps


def _min_max_to_both_signs(maps):
    span = _most(maps) - _least(maps)
    return np.where(span > 0, 2 * (maps - _least(maps)) / np.where(span > 0, span, 1) - 1, 0)


def _each_sign_by_its_own(maps):
    positive, negative = np.maximum(maps, 0), np.maximum(-maps, 0)
    return _divided(_extent)(positive) - _divided(_extent)(negative)


def _centred_by_loop(maps):
    result = maps.copy()
    for signed in result:
        if signed.any():
            signed /= max(signed.max(), -signed.min())
    return result


def _centred_without_nan(maps):
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(maps / _extent(maps))


def _centred_by_extremes(maps):
    flat = maps.reshape(len(maps), -1)
    reach = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    reach[reach == 0] = 1
    return (flat / reach[:, None]).reshape(maps.shape)


signed = Exercise(
    key="5.4",
    title="a colour scale with 0 in its middle",
    reference=vgg_steps.centred,
    cases=_signed_cases,
    mistakes=(
        Mistake(
            _min_max_to_both_signs,
            "Min-max scaling moves 0 away from the middle, to another place in each map, so that nothing looks like something: "
            "divide by the largest absolute value, and subtract nothing.",
            "source",
        ),
        Mistake(
            _divided(lambda maps: _most(maps) - _least(maps), lambda maps: maps - _least(maps)),
            "Min-max scaling to [0, 1] gives 0 another colour in each map, and negative values look like weak evidence: divide by "
            "the largest absolute value, and subtract nothing.",
            "source",
        ),
        Mistake(
            _divided(_extent, lambda maps: np.maximum(maps, 0)),
            "You drop what is negative: both signs are to be seen.",
            "source",
        ),
        Mistake(
            lambda maps: _divided(_extent)(np.maximum(maps, 0)),
            "You apply a ReLU and scale what is left to [0, 1], as for a heatmap: both signs are to be seen.",
            "source",
        ),
        Mistake(
            _divided(_extent, np.abs),
            "You return absolute values: only the divisor is one, the map keeps its signs.",
            "trial",
        ),
        Mistake(
            _divided(_most),
            "You divide by the largest value, which may be small beside the most negative one, or not even positive: divide by the "
            "largest absolute value.",
            "peer",
        ),
        Mistake(
            _plain_division(_most),
            "You divide by the largest value: where all are negative, that turns the signs over, and where all are 0, it gives NaN. "
            "Divide by the largest absolute value if that is positive.",
            "peer",
        ),
        Mistake(
            _divided(lambda maps: np.abs(_most(maps))),
            "You take the absolute value of the maximum, and the most negative value may be larger: take the maximum of "
            "`np.abs(maps)`.",
            "trial",
        ),
        Mistake(
            _divided(lambda maps: _most(maps) - _least(maps)),
            "You divide by the range, from the smallest to the largest value: divide by the largest absolute value.",
            "peer",
        ),
        Mistake(
            _divided(lambda maps: np.full_like(maps[:, :1, :1], np.abs(maps).max())),
            "You divide all maps by the largest value in the batch: each map has its own.",
            "source",
        ),
        Mistake(
            _divided(lambda maps: np.abs(maps).max(axis=2, keepdims=True)),
            "You scale every row for itself: the maximum goes over both axes of a map, `axis=(1, 2)`.",
            "trial",
        ),
        Mistake(
            _divided(lambda maps: np.abs(maps).max(axis=1, keepdims=True)),
            "You scale every column for itself: the maximum goes over both axes of a map, `axis=(1, 2)`.",
            "trial",
        ),
        Mistake(
            _divided(lambda maps: np.abs(maps).max(axis=0, keepdims=True)),
            "You take the maximum over the images, axis 0: each map has its own, over `axis=(1, 2)`.",
            "trial",
        ),
        Mistake(
            _plain_division(_extent),
            "A map that is 0 everywhere becomes NaN, for 0 is divided by 0: such a map stays 0. `np.divide` takes `where=` and "
            "`out=`.",
            "peer",
        ),
        *(
            Mistake(
                _plain_division(lambda maps, more=float(number): _extent(maps) + more),
                f"The {number} in your divisor changes a map whose values are small themselves, or even erases it: add nothing, and "
                "treat the map that is 0 by itself.",
                "peer",
            )
            for number in ("1e-5", "1e-6", "1e-7", "1e-8", "1e-9", "1e-10", "1e-12", "1e-15")
        ),
        Mistake(
            lambda maps: maps / np.abs(maps).max(axis=(1, 2)),
            "Divisors of shape (B,) do not fit maps of shape (B, h, w): keep the axes, with `keepdims=True`.",
            "trial",
        ),
        Mistake(
            _plain_division(lambda maps: np.abs(maps).max()),
            "You divide all maps by the largest value in the batch, and if that is 0, you get NaN: each map has its own divisor, and "
            "where that is 0 the map stays 0.",
            "source",
        ),
        Mistake(
            _plain_division(lambda maps: _most(maps) - _least(maps)),
            "You divide by the range, from the smallest to the largest value, and where that is 0 you get NaN: divide by the "
            "largest absolute value, where it is positive.",
            "peer",
        ),
        Mistake(
            _min_max_unguarded(2, -1),
            "Min-max scaling moves 0 away from the middle, and makes NaN of a map that is the same everywhere: divide by the largest "
            "absolute value, and subtract nothing.",
            "source",
        ),
        Mistake(
            _min_max_unguarded(1, 0),
            "Min-max scaling to [0, 1] gives 0 another colour in each map, and makes NaN of one that is the same everywhere: divide "
            "by the largest absolute value, and subtract nothing.",
            "source",
        ),
        Mistake(
            lambda maps: maps / np.maximum(_extent(maps), 1e-8),
            "Your divisor is 1e-8 at least, and one of the maps is smaller: it stays faint. Only the map that is 0 needs another "
            "divisor.",
            "peer",
        ),
        Mistake(
            lambda maps: maps / np.maximum(_extent(maps), 1),
            "Your divisor is 1 at least: small maps are scaled up too.",
            "trial",
        ),
        Mistake(
            lambda maps: np.clip(maps, -1, 1),
            "You cut off what is beyond -1 and 1: scale the map instead.",
            "trial",
        ),
        Mistake(
            lambda maps: np.sign(maps),
            "Only the signs are left: a weak value should be a pale one.",
            "trial",
        ),
        Mistake(
            np.tanh,
            "`tanh` squeezes large values together and leaves small maps faint: divide each map by its largest absolute value.",
            "trial",
        ),
        Mistake(
            _each_sign_by_its_own,
            "You scale positive and negative values each by their own, so that the same colour means two strengths: one divisor "
            "for both.",
            "trial",
        ),
        Mistake(
            _divided(
                lambda maps: _extent(maps - maps.mean(axis=(1, 2), keepdims=True)),
                lambda maps: maps - maps.mean(axis=(1, 2), keepdims=True),
            ),
            "You subtract the mean first, and 0 moves away from the middle: subtract nothing.",
            "peer",
        ),
        Mistake(
            _divided(lambda maps: maps.std(axis=(1, 2), keepdims=True)),
            "You divide by the standard deviation, so that the map leaves [-1, 1]: divide by the largest absolute value.",
            "peer",
        ),
        Mistake(
            _divided(lambda maps: np.sqrt((maps**2).sum(axis=(1, 2), keepdims=True))),
            "You divide by the map's length (its norm): divide by the largest absolute value.",
            "trial",
        ),
        Mistake(
            _divided(lambda maps: np.abs(maps).sum(axis=(1, 2), keepdims=True)),
            "You divide by the sum of the absolute values: divide by their maximum.",
            "trial",
        ),
        Mistake(
            lambda maps: (vgg_steps.centred(maps) + 1) / 2,
            "You move the map to [0, 1], with 0 at 0.5: leave it from -1 to 1, the colour scale does the rest.",
            "trial",
        ),
        Mistake(
            _in_the_place_of_the_maps,
            "`/=` overwrites the maps that came in, and the strength of each is lost: divide into a new array.",
            "trial",
        ),
        Mistake(
            lambda maps: maps,
            "You return the maps as they are: divide each by its largest absolute value.",
            "trial",
        ),
    ),
    verified="Every map reaches 1 or -1 and 0 stays 0, for large, tiny and one-sided maps; a blank map stays blank.",
    hints=(
        "One divisor for each map, found over both of its axes, so that the largest value of either sign becomes 1 or -1. And a map "
        "for which that divisor is 0?",
        "`largest = np.abs(maps).max(axis=(1, 2), keepdims=True)`, and `np.divide(maps, largest, out=np.zeros_like(maps), "
        "where=largest > 0)`.",
    ),
    alternatives=(_centred_by_loop, _centred_without_nan, _centred_by_extremes),
)


# 5.5 -------------------------------------------------------------------------------------------------------


def _vgg(rng, dtype, inplace):
    """2 x 10 x 9 images -> 7 channels of 5 x 4, pooled to 2 x 2 -> 4 logits."""

    def build():
        return nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 7, 3, padding=1),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(28, 4),
        )

    return _made(rng, build, dtype)


def _three_maps_cases(rng):
    cases = []
    for dtype, inplace, count, layers in (
        (torch.float32, False, 3, ("3", "4")),
        (torch.float64, True, 3, ("3", "4")),
        (torch.float64, False, 1, ("0", "1")),
    ):
        images = torch.tensor(rng.normal(size=(count, 2, 10, 9)), dtype=dtype)
        net = _vgg(rng, dtype, inplace)
        with torch.no_grad():
            likely = net(images).argmax(dim=1)
        classes = (likely + torch.tensor([1, 2, 3])[:count]) % 4  # never the predicted class
        cases.append((net, *layers, images, classes))
    return cases


def _use_three_maps(answer, model, conv, relu, images, classes):
    maps = answer(model, model.get_submodule(conv), model.get_submodule(relu), images, classes)
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise Complaint("Afterwards the model's parameters have a `.grad` that they did not have before.")
    if isinstance(maps, tuple | list) and any(getattr(map, "requires_grad", False) for map in maps):
        raise Complaint("The maps are still part of the graph, and cannot be drawn.")
    return maps


def _score_of_class(logits, classes):
    return logits.gather(1, classes[:, None]).sum()


def _mean_gradient(gradient):
    return gradient.mean(dim=(2, 3), keepdim=True)


def _weighted_sum(weights, activations):
    return (weights * activations).sum(dim=1)


BEFORE_AFTER_MIXED = (("before", "before"), ("after", "after"), ("before", "after"))


def _maps(
    pairs=BEFORE_AFTER_MIXED,
    score=_score_of_class,
    weights=_mean_gradient,
    combine=_weighted_sum,
    finish=lambda maps: maps,
):
    """An answer to 5.5 with other parts. pairs: (whose weights, whose activations) of the three maps."""

    def answer(model, conv, relu, images, classes):
        with hooks.capture(conv, relu) as kept:
            total = score(model(images), classes)
        gradients = dict(
            zip(("before", "after"), torch.autograd.grad(total, (kept[conv], kept[relu])), strict=True)
        )
        activations = {"before": kept[conv].detach(), "after": kept[relu].detach()}
        return tuple(finish(combine(weights(gradients[w]), activations[a])) for w, a in pairs)

    return answer


def _three_maps_by_outputs(model, conv, relu, images, classes):
    with hooks.keep_outputs(conv) as conv_outputs, hooks.keep_outputs(relu) as relu_outputs:
        score = _score_of_class(model(images), classes)
    (before,), (after,) = conv_outputs, relu_outputs
    weights = [_mean_gradient(g) for g in torch.autograd.grad(score, (before, after))]
    before, after = before.detach(), after.detach()
    return (
        _weighted_sum(weights[0], before),
        _weighted_sum(weights[1], after),
        _weighted_sum(weights[0], after),
    )


def _three_maps_by_backward_hooks(model, conv, relu, images, classes):
    with ExitStack() as stack:
        before, after = (stack.enter_context(hooks.keep_outputs(layer)) for layer in (conv, relu))
        g_before, g_after = (stack.enter_context(hooks.keep_gradients(layer)) for layer in (conv, relu))
        _score_of_class(model(images), classes).backward()
    model.zero_grad()
    pairs = ((g_before, before), (g_after, after), (g_before, after))
    return tuple(_weighted_sum(_mean_gradient(g[0]), a[0]) for g, a in pairs)


def _three_maps_by_backward(cleaned):
    def answer(model, conv, relu, images, classes):
        with hooks.capture(conv, relu) as kept:
            _score_of_class(model(images), classes).backward()
        before, after = kept[conv], kept[relu]
        if cleaned:
            model.zero_grad()
        pairs = ((before.grad, before), (after.grad, after), (before.grad, after))
        return tuple(_weighted_sum(_mean_gradient(g), a.detach()) for g, a in pairs)

    return answer


def _three_maps_with_graph(model, conv, relu, images, classes):
    with hooks.capture(conv, relu) as kept:
        score = _score_of_class(model(images), classes)
    before, after = kept[conv], kept[relu]
    weights = [_mean_gradient(g) for g in torch.autograd.grad(score, (before, after))]
    return tuple(_weighted_sum(weights[i], a) for i, a in ((0, before), (1, after), (0, after)))


def _clamped_twice(model, conv, relu, images, classes):
    """As if the gradient were the same on both sides of a ReLU."""
    return _maps(pairs=(("after", "before"), ("after", "after"), ("after", "after")))(
        model, conv, relu, images, classes
    )


def _three_maps_without_retaining(model, conv, relu, images, classes):
    with hooks.capture(conv, relu) as kept:
        score = _score_of_class(model(images), classes)
    gradients = [torch.autograd.grad(score, kept[layer])[0] for layer in (conv, relu)]
    before, after = (
        _weighted_sum(_mean_gradient(g), kept[x]) for g, x in zip(gradients, (conv, relu), strict=True)
    )
    return before, after, _weighted_sum(_mean_gradient(gradients[0]), kept[relu])


def _three_maps_by_average(model, conv, relu, images, classes):
    before, after, _ = vgg_steps.three_maps(model, conv, relu, images, classes)
    return before, after, (before + after) / 2


def _three_maps_by_two_passes(model, conv, relu, images, classes):
    found = []
    for layer in (conv, relu):
        with hooks.capture(layer) as kept:
            logits = model(images)
        score = sum(logits[i, int(c)] for i, c in enumerate(classes))
        (gradient,) = torch.autograd.grad(score, kept[layer])
        found.append((kept[layer].detach(), gradient.mean(dim=(-2, -1))))
    (before, w_before), (after, w_after) = found
    pairs = ((w_before, before), (w_after, after), (w_before, after))
    return [torch.einsum("bc,bchw->bhw", w, a) for w, a in pairs]


def _three_maps_by_mask(model, conv, relu, images, classes):
    """The gradient before a ReLU is the one after it, where the input was positive."""
    with hooks.capture(conv, relu) as kept:
        score = _score_of_class(model(images), classes)
    before, after = kept[conv].detach(), kept[relu].detach()
    (gradient,) = torch.autograd.grad(score, kept[relu])
    weights = _mean_gradient(gradient * (before > 0)), _mean_gradient(gradient)
    return tuple(_weighted_sum(weights[i], a) for i, a in ((0, before), (1, after), (0, after)))


three = Exercise(
    key="5.5",
    title="before, after and mixed",
    reference=vgg_steps.three_maps,
    cases=_three_maps_cases,
    use=_use_three_maps,
    mistakes=(
        Mistake(
            _maps(pairs=(("before", "before"), ("after", "after"), ("after", "before"))),
            "Your mixed map is mixed the other way round: it takes the activations after the ReLU, for those are what is "
            "overwritten, and the gradients before it.",
            "trial",
        ),
        Mistake(
            _maps(pairs=(("after", "after"), ("before", "before"), ("before", "after"))),
            "The first two maps have changed places: before the ReLU (the convolution) comes first.",
            "trial",
        ),
        Mistake(
            _maps(pairs=(("before", "after"), ("before", "before"), ("after", "after"))),
            "The order is wrong, for the mixed map comes first: return before, after, mixed.",
            "trial",
        ),
        Mistake(
            _maps(pairs=(("before", "before"), ("after", "after"), ("after", "after"))),
            "Your third map is the one after the ReLU once more: its weights are the convolution's.",
            "trial",
        ),
        Mistake(
            _maps(pairs=(("before", "before"), ("after", "after"), ("before", "before"))),
            "Your third map is the one before the ReLU once more: its activations are the ReLU's.",
            "trial",
        ),
        Mistake(
            _clamped_twice,
            "You use the ReLU's gradients throughout: before the ReLU they are others, 0 wherever its input was negative. Ask "
            "for both: `torch.autograd.grad(score, (kept[conv], kept[relu]))`.",
            "trial",
        ),
        Mistake(
            _maps(pairs=(("before", "before"), ("before", "after"), ("before", "after"))),
            "You use the convolution's gradients throughout: the map after the ReLU takes the ReLU's.",
            "peer",
        ),
        Mistake(
            _maps(pairs=(("before", "after"), ("after", "after"), ("before", "after"))),
            "Your first map has the ReLU's activations, so it is the mixed one already: before the ReLU they have both signs.",
            "peer",
        ),
        Mistake(
            _three_maps_by_outputs,
            "Where the ReLU works in place, what `keep_outputs` holds of the convolution has been overwritten, and all three maps "
            "are the one after the ReLU: use `capture`.",
            "peer",
        ),
        Mistake(
            _three_maps_by_backward_hooks,
            "PyTorch allows no backward hook on a convolution whose ReLU works in place: keep both layers with `capture`, and ask "
            "`torch.autograd.grad` for the gradients.",
            "source",
        ),
        Mistake(
            _three_maps_by_backward(cleaned=False),
            "`backward()` adds to the `.grad` of every parameter and leaves that behind for the next image: use "
            "`torch.autograd.grad(score, (kept[conv], kept[relu]))`.",
            "source",
        ),
        Mistake(
            _maps(score=lambda logits, classes: logits.max(dim=1).values.sum()),
            "You explain the class that the model predicts: take the logits of `classes`.",
            "source",
        ),
        Mistake(
            _maps(score=lambda logits, classes: logits.max()),
            "You start from `output.max()`, one number of the whole batch, whatever class was asked for: take each image's "
            "logit of its class.",
            "source",
        ),
        Mistake(
            _maps(score=lambda logits, classes: logits.sum()),
            "You add up the logits of all classes: take each image's logit of its class.",
            "trial",
        ),
        Mistake(
            _maps(score=lambda logits, classes: logits[:, classes].sum()),
            "`logits[:, classes]` takes the classes of all images for every image: use `logits.gather(1, classes[:, None])`.",
            "trial",
        ),
        Mistake(
            _maps(score=lambda logits, classes: logits[:, classes[0]].sum()),
            "You ask for the first image's class in every image: each has its own.",
            "trial",
        ),
        Mistake(
            _maps(score=lambda logits, classes: logits[0, classes[0]]),
            "Only the first image gets a map: add up the scores of all images, which do not mix.",
            "trial",
        ),
        Mistake(
            _maps(score=lambda logits, classes: _score_of_class(logits, classes) / len(logits)),
            "You take the mean of the scores, so that a map depends on how many images there are: add them up.",
            "trial",
        ),
        Mistake(
            _maps(score=lambda logits, classes: _score_of_class(logits.softmax(dim=1), classes)),
            "You start from the probability: Grad-CAM starts from the logit, before the softmax.",
            "peer",
        ),
        Mistake(
            _maps(score=lambda logits, classes: F.cross_entropy(logits, classes, reduction="sum")),
            "You start from the loss: Grad-CAM starts from the logit of the class.",
            "peer",
        ),
        Mistake(
            _maps(score=lambda logits, classes: (logits.gather(1, classes[:, None]) ** 2).sum() / 2),
            "You start with the logit's value in place of 1, so that a negative logit turns the map over: add up the logits and "
            "take the gradient of that.",
            "source",
        ),
        Mistake(
            _three_maps_with_graph,
            "Your maps are still part of the graph, which holds the memory of the whole network and refuses `.numpy()`: take "
            "`kept[conv].detach()`, and the same of the ReLU.",
            "peer",
        ),
        Mistake(
            _three_maps_without_retaining,
            "The first call of `torch.autograd.grad` frees the graph: ask for both gradients in one call, "
            "`torch.autograd.grad(score, (kept[conv], kept[relu]))`.",
            "trial",
        ),
        Mistake(
            _three_maps_by_average,
            "Your third map is the mean of the other two: it is made of the convolution's weights and the ReLU's activations.",
            "trial",
        ),
        Mistake(
            _maps(weights=lambda g: g.mean(dim=(2, 3))),
            "Weights of shape (B, C) do not fit activations of shape (B, C, h, w): keep the axes, with `keepdim=True`.",
            "trial",
        ),
        Mistake(
            _maps(weights=lambda g: g.sum(dim=(2, 3), keepdim=True)),
            "You add the gradients of a channel up: its weight is their mean over the positions.",
            "peer",
        ),
        Mistake(
            _maps(weights=lambda g: g.mean(dim=(0, 2, 3), keepdim=True)),
            "You average over the images as well, so that all share their weights: average over `dim=(2, 3)`.",
            "source",
        ),
        Mistake(
            _maps(weights=lambda g: g.mean(dim=1, keepdim=True)),
            "You average over the channels: each channel's weight is the mean over its positions, `dim=(2, 3)`.",
            "trial",
        ),
        Mistake(
            _maps(weights=lambda g: g),
            "You multiply position by position, which is HiResCAM: Grad-CAM takes the mean of each channel's gradient first, "
            "over `dim=(2, 3)`.",
            "peer",
        ),
        Mistake(
            _maps(weights=lambda g: _mean_gradient(g).abs()),
            "You take the absolute values of the weights: a channel that speaks against the class counts as negative.",
            "trial",
        ),
        Mistake(
            _maps(weights=lambda g: _mean_gradient(g).clamp(min=0)),
            "You drop negative weights: a channel that speaks against the class counts too.",
            "peer",
        ),
        Mistake(
            _maps(weights=lambda g: _mean_gradient(g.clamp(min=0))),
            "You drop negative gradients before the mean, which is no longer Grad-CAM: take the mean with signs.",
            "peer",
        ),
        Mistake(
            _maps(finish=F.relu),
            "Your maps end with a ReLU: here they keep their signs.",
            "source",
        ),
        Mistake(
            _maps(combine=lambda weights, activations: (weights * activations).mean(dim=1)),
            "You average over the channels: the map is their sum.",
            "source",
        ),
        Mistake(
            _maps(combine=lambda weights, activations: (weights * activations).clamp(min=0).sum(dim=1)),
            "You apply a ReLU to every channel: these maps keep their signs, in each channel too.",
            "peer",
        ),
        Mistake(
            _maps(finish=lambda maps: maps / maps.abs().amax(dim=(1, 2), keepdim=True)),
            "You scale the maps: they stay in units of the logit, so that they can be compared. Scaling comes later.",
            "trial",
        ),
    ),
    verified="Three maps with signs, of the class that was asked for, whether the ReLU works in place or not; no gradient left behind.",
    hints=(
        "One forward pass under `capture(conv, relu)` keeps both activations, and one call of `torch.autograd.grad` takes both "
        "gradients. What is left is which weights go with which activations.",
        "The score is `logits.gather(1, classes[:, None]).sum()`; then `torch.autograd.grad(score, (kept[conv], kept[relu]))`. "
        "Weights are `.mean(dim=(2, 3), keepdim=True)`, a map is `(weights * activations).sum(dim=1)`; the mixed one takes "
        "the convolution's weights and the ReLU's activations.",
    ),
    alternatives=(
        _three_maps_by_two_passes,
        _three_maps_by_mask,
        _three_maps_by_backward(cleaned=True),
    ),
)


# 5.6 -------------------------------------------------------------------------------------------------------


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x) + x)


class _Guided(nn.Module):
    """2 x 6 x 5 images -> 3 logits; one ReLU runs twice, one stands in a block, and one activation is another one."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.block = _Residual()
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(6, 5, 2), nn.LeakyReLU(0.3), nn.Flatten(), nn.Linear(100, 9))
        self.last = nn.ReLU()
        self.logits = nn.Linear(9, 3)

    def forward(self, x):
        x = self.block(self.relu(self.conv1(x)))
        return self.logits(self.last(self.head(self.relu(self.conv2(x)))))


def _guided_cases(rng):
    cases = []
    for dtype, count in ((torch.float32, 3), (torch.float64, 3), (torch.float64, 1)):
        net = _made(rng, _Guided, dtype)
        cases.append((net, torch.tensor(rng.normal(size=(count, 2, 6, 5)), dtype=dtype)))
    return cases


def _picture_gradient(net, images):
    """The logits, and the gradient of two of them with respect to the pixels."""
    pixels = images.clone().requires_grad_()
    logits = net(pixels)
    if not logits.requires_grad:
        raise Complaint("No gradient can start from the logits: inside the block, PyTorch takes no notes.")
    (gradient,) = torch.autograd.grad((logits[:, 0] - logits[:, 2]).sum(), pixels)
    return logits.detach(), gradient


def _use_guided(answer, model, images):
    """Logits and gradient of the pixels inside the block, the gradient of another net there, and what follows."""
    another = nn.Sequential(nn.Flatten(), nn.ReLU())  # draws no random numbers
    scale = torch.linspace(-1, 1, images[0].numel(), dtype=images.dtype)
    with model.relu.register_full_backward_hook(lambda *args: None):  # someone else's
        state = state_of(model)
        block = answer(model)
        if block is None:
            raise Complaint("It gives `with` nothing to open: `@contextmanager` above it, a `yield` in it.")
        if not is_block(block):
            return block
        with opened(block):
            inside = _picture_gradient(model, images)
            pixels = images.clone().requires_grad_()
            (beside,) = torch.autograd.grad((scale * another(pixels)).sum(), pixels)
        expect_state(model, state, "After the block")
        afterwards = _picture_gradient(model, images)
        expect_errors_to_pass(answer, (model,), model, images)
    return *inside, beside, *afterwards


def _relus(model):
    return [module for module in model.modules() if isinstance(module, nn.ReLU)]


def _positive_part(relu, grad_input, grad_output):
    return (grad_input[0].clamp(min=0),)


def _guiding(hook=_positive_part, where=_relus, register="register_full_backward_hook"):
    """An answer to 5.6 with another hook, on other modules."""

    @contextmanager
    def answer(model):
        with ExitStack() as stack:
            for module in where(model):
                stack.enter_context(getattr(module, register)(hook))
            yield

    return answer


def _guide_never_removed(model):
    for module in _relus(model):
        module.register_full_backward_hook(_positive_part)
    yield


def _guide_without_finally(model):
    handles = [module.register_full_backward_hook(_positive_part) for module in _relus(model)]
    yield
    for handle in handles:
        handle.remove()


def _guide_swallowing(model):
    handles = [module.register_full_backward_hook(_positive_part) for module in _relus(model)]
    try:
        yield
    except Exception:
        pass
    for handle in handles:
        handle.remove()


def _guide_removing_the_last(model):
    for module in _relus(model):
        handle = module.register_full_backward_hook(_positive_part)
    try:
        yield
    finally:
        handle.remove()


def _guide_removing_too_early(model):
    with _guiding()(model):
        pass
    yield


def _guide_block_per_relu(model):
    for module in _relus(model):
        with module.register_full_backward_hook(_positive_part):
            yield


def _guide_generator(model):
    with _guiding()(model):
        yield


@contextmanager
def _guide_returned(model):
    with _guiding()(model):
        return model


def _guide_at_once(model):
    for module in _relus(model):
        module.register_full_backward_hook(_positive_part)
    return model


def _guide_without_yield(model):
    _guide_at_once(model)


def _guide_clearing_all(model):
    handles = [module.register_full_backward_hook(_positive_part) for module in _relus(model)]
    try:
        yield
    finally:
        for module in _relus(model):
            module._backward_hooks.clear()
        for handle in handles:
            handle.remove()


def _guide_everywhere(model):
    def guide(module, grad_input, grad_output):
        if isinstance(module, nn.ReLU):
            return _positive_part(module, grad_input, grad_output)

    with nn.modules.module.register_module_full_backward_hook(guide):
        yield


def _guide_called_at_once(model):
    def guide(relu, grad_input, grad_output):
        return (grad_input[0].clamp(min=0),)

    handles = [module.register_full_backward_hook(guide()) for module in _relus(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _guide_of_two_parameters(model):
    def guide(grad_input, grad_output):
        return (grad_input[0].clamp(min=0),)

    with _guiding(guide)(model):
        yield


def _guide_of_one_parameter(model):
    def guide(gradient):
        return gradient.clamp(min=0)

    with _guiding(guide)(model):
        yield


def _guide_without_graph(model):
    with torch.no_grad(), _guiding()(model):
        yield


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * (gradient > 0)


def _guide_for_good(model):
    for module in _relus(model):
        module.forward = _GuidedReLU.apply
    yield


def _guide_by_forward(model):
    relus = _relus(model)
    try:
        for module in relus:
            module.forward = _GuidedReLU.apply
        yield
    finally:
        for module in relus:
            del module.forward


class _GuideByClass:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.handles = [
            module.register_full_backward_hook(self.guide)
            for module in self.model.modules()
            if type(module) is nn.ReLU
        ]

    def guide(self, module, grad_input, grad_output):
        (gradient,) = grad_input
        return (torch.where(gradient > 0, gradient, torch.zeros_like(gradient)),)

    def __exit__(self, *_error):
        for handle in self.handles:
            handle.remove()


guided = Exercise(
    key="5.6",
    title="guided backpropagation",
    reference=hooks.guided_backprop,
    cases=_guided_cases,
    use=_use_guided,
    mistakes=(
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: (grad_output[0].clamp(min=0),)),
            "You return the positive part of `grad_output`, which forgets where the ReLU's own input was negative (that is the "
            '"deconvnet" of Zeiler and Fergus): start from `grad_input`, where the ReLU has seen to that.',
            "peer",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: None),
            "Inside the block the gradient is the ordinary one: the hook has to be a backward hook on the ReLUs while the block "
            "runs, and to *return* the new gradient, as a tuple of one.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: grad_input[0].clamp(min=0)),
            "A backward hook returns a tuple, of one gradient per input of the module: put a comma, `(gradient,)`.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: grad_input.clamp(min=0)),
            "`grad_input` is a tuple of one gradient per input of the module: take `grad_input[0]`, and return a tuple again.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: grad_output),
            "You return `grad_output` as it is, which takes the ReLU out of the backward pass: return the positive part of "
            "`grad_input`.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: (grad_input[0].clamp(max=0),)),
            "You keep what is negative: `clamp(min=0)` keeps what is positive.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: (grad_input[0].abs(),)),
            "You take absolute values: negative gradients are to become 0.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: ((grad_input[0] > 0).to(grad_input[0].dtype),)),
            "You return the mask of the positive gradients: multiply the gradient by it.",
            "trial",
        ),
        Mistake(
            _guiding(lambda relu, grad_input, grad_output: (grad_input[0].clamp(0, 1),)),
            "You cut the gradient off at 1 too: only what is negative becomes 0, `clamp(min=0)`.",
            "trial",
        ),
        Mistake(
            _guiding(where=lambda model: [m for m in model.modules() if m is not model]),
            "Your hook is on every module, convolutions included: ask `isinstance(module, nn.ReLU)`.",
            "trial",
        ),
        Mistake(
            _guiding(where=lambda model: [m for m in model.modules() if isinstance(m, nn.Conv2d)]),
            "Your hook is on the convolutions: it belongs on the ReLUs, `isinstance(module, nn.ReLU)`.",
            "trial",
        ),
        Mistake(
            _guiding(
                where=lambda model: [m for m in model.modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)]
            ),
            "Your hook is on other activations too, such as `nn.LeakyReLU`: ask `isinstance(module, nn.ReLU)`.",
            "trial",
        ),
        Mistake(
            _guiding(where=lambda model: [m for m in model.children() if isinstance(m, nn.ReLU)]),
            "`children()` gives the direct children only, and a ReLU may stand in a block: go through `modules()`.",
            "peer",
        ),
        Mistake(
            _guiding(where=lambda model: _relus(model)[:1]),
            "Only the first ReLU has a hook: every one gets it. (Does the `yield` stand inside the loop?)",
            "source",
        ),
        Mistake(
            _guiding(where=lambda model: _relus(model)[-1:]),
            "Only the last ReLU has a hook: every one gets it.",
            "trial",
        ),
        Mistake(
            _guiding(where=lambda model: [model]),
            "You drop negative gradients once, at the end of the backward pass: every ReLU does it on the way.",
            "peer",
        ),
        Mistake(
            contextmanager(_guide_block_per_relu),
            "Your `yield` stands inside the loop, so that only one ReLU has its hook while the block runs: first all hooks, then "
            "one `yield`.",
            "trial",
        ),
        Mistake(
            _guiding(register="register_backward_hook"),
            "`register_backward_hook` is deprecated, and refuses a module that has a newer hook: use "
            "`register_full_backward_hook`.",
            "source",
        ),
        Mistake(
            contextmanager(_guide_never_removed),
            "Your hooks stay after the block, and every later gradient is guided too: keep all handles, and remove each after the "
            "`yield`.",
            "source",
        ),
        Mistake(
            contextmanager(_guide_without_finally),
            "If an error ends the block, your hooks stay: remove them in `finally:`, or let `with ExitStack()` do it.",
            "peer",
        ),
        Mistake(
            contextmanager(_guide_swallowing),
            "Your `except` swallows every error of the block: use `finally`, without `except`.",
            "trial",
        ),
        Mistake(
            contextmanager(_guide_removing_the_last),
            "You remove only the last of your hooks: keep the handles of all, and remove each.",
            "peer",
        ),
        Mistake(
            contextmanager(_guide_clearing_all),
            "`_backward_hooks.clear()` takes off other people's hooks too: remove your own, with `handle.remove()`.",
            "peer",
        ),
        Mistake(
            contextmanager(_guide_everywhere),
            "`register_module_full_backward_hook` is for every module of every net, so that other models are guided too: put "
            "hooks on the ReLUs of this model.",
            "trial",
        ),
        Mistake(
            _guide_generator,
            "Write `@contextmanager` on the line between `@exercise(...)` and `def`: without it, `with` cannot open what you "
            "return.",
            "trial",
        ),
        Mistake(
            _guide_returned,
            "Write `yield` in place of `return`: the block runs where the `yield` stands.",
            "trial",
        ),
        Mistake(
            _guide_at_once,
            "You return the model, with hooks that nobody will remove: `yield` in the middle, and take the hooks off after it.",
            "source",
        ),
        Mistake(
            _guide_without_yield,
            "There is no `yield`, so your function puts the hooks on for good: write `@contextmanager` above it, `yield` after the "
            "hooks are on, and take them off after that.",
            "source",
        ),
        Mistake(
            contextmanager(_guide_called_at_once),
            "You call your hook while registering it: pass the function itself, without brackets.",
            "trial",
        ),
        Mistake(
            contextmanager(_guide_of_two_parameters),
            "PyTorch calls a backward hook with three arguments: define it as `def guide(relu, grad_input, grad_output)`.",
            "trial",
        ),
        Mistake(
            contextmanager(_guide_of_one_parameter),
            "Your hook takes one argument; PyTorch passes three: `def guide(relu, grad_input, grad_output)`.",
            "trial",
        ),
        Mistake(
            contextmanager(_guide_without_graph),
            "Leave out `torch.no_grad()`: without notes there is no backward pass to guide.",
            "trial",
        ),
        Mistake(
            contextmanager(_guide_for_good),
            "After the block the gradient is still guided: put back what you changed in the ReLUs.",
            "trial",
        ),
    ),
    verified="Inside the block every ReLU drops negative gradients, nested and repeated ones too; nothing else changed, and no hook was left, after an error neither.",
    hints=(
        "The ReLU already makes the gradient 0 where its input was not positive, and `grad_input` is what comes out of that. What "
        "has to be done to it, and what does a backward hook do with what it returns?",
        "`def guide(relu, grad_input, grad_output): return (grad_input[0].clamp(min=0),)`. Put it on every module that is an "
        "`nn.ReLU` with `stack.enter_context(module.register_full_backward_hook(guide))` inside `with ExitStack() as stack:`, "
        "and `yield` after that loop.",
    ),
    alternatives=(
        _guiding(
            lambda relu, grad_output: (F.relu(grad_output[0]),), register="register_full_backward_pre_hook"
        ),
        _GuideByClass,
        contextmanager(_guide_by_forward),
    ),
)


# 5.7 -------------------------------------------------------------------------------------------------------


def _rank_cases(rng):
    def pairs(count, height, width):
        one = rng.normal(size=(count, height, width))
        other = 0.6 * one + rng.normal(size=one.shape)
        return one, np.exp(2 * other) - 3

    one, other = pairs(6, 5, 4)
    one[1] = np.maximum(one[1], 0)  # many ties
    other[2] = np.round(other[2])
    one[3], other[4] = 0, 0.75  # blank, and constant
    one[5] *= -1
    few, others = pairs(3, 3, 7)
    few[1] = others[1] = 0.125  # both constant
    others[2] = np.exp(few[2])  # the same order
    single = pairs(1, 4, 3)
    return [
        (one, other),
        (few.astype(np.float32), others.astype(np.float32)),
        single,
        (np.full((2, 3, 2), 1.5), rng.normal(size=(2, 3, 2))),
    ]


def _flat(maps):
    return maps.reshape(len(maps), -1)


def _ranks(maps, method="average"):
    return rankdata(_flat(maps), axis=1, method=method)


def _pearson(one, other):
    """Correlation of the rows, NaN where one of them is constant."""
    constant = (np.ptp(one, axis=1) == 0) | (np.ptp(other, axis=1) == 0)
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.where(constant, np.nan, (one * other).sum(axis=1) / np.where(constant, 1, spread))


def _agreement(ranks=_ranks, before=lambda maps: maps, compare=_pearson, finish=lambda values: values):
    """An answer to 5.7 with other parts. (Constant maps have a mean without rounding, so correlations are NaN.)"""
    return lambda one, other: finish(compare(ranks(before(one)), ranks(before(other))))


def _by_position(maps):
    return _flat(maps).argsort(axis=1).argsort(axis=1).astype(float)


def _difference_formula(one, other):
    """1 - 6 sum d^2 / (n (n^2 - 1))."""
    n = one.shape[1]
    return 1 - 6 * ((one - other) ** 2).sum(axis=1) / (n * (n**2 - 1))


def _row_by_row(one, other):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [
            np.mean([spearmanr(a, b).statistic for a, b in zip(*pair, strict=True)])
            for pair in zip(one, other, strict=True)
        ]
    return np.array(rows)


def _per_image(measure):
    """`measure(a, b)` of the two flat maps of every image."""

    def answer(one, other):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array([measure(a, b) for a, b in zip(_flat(one), _flat(other), strict=True)])

    return answer


def _over_the_batch(one, other):
    return np.full(len(one), spearmanr(one.ravel(), other.ravel()).statistic)


def _ranked_over_the_batch(one, other):
    return _pearson(_flat(rankdata(one).reshape(one.shape)), _flat(rankdata(other).reshape(other.shape)))


def _cosine(one, other):
    return (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))


def _standardised_over_the_batch(one, other):
    one, other = ((ranks - ranks.mean()) / (ranks.std() or np.nan) for ranks in (one, other))
    return (one * other).mean(axis=1)


def _covariance(one, other):
    one = one - one.mean(axis=1, keepdims=True)
    return (one * (other - other.mean(axis=1, keepdims=True))).mean(axis=1)


def _refusing(one, other):
    result = vgg_steps.rank_agreement(one, other)
    if np.isnan(result).any():
        raise ValueError("a constant map has no order")
    return result


def _leaving_out(one, other):
    result = vgg_steps.rank_agreement(one, other)
    return result[~np.isnan(result)]


def _agreement_by_comparing(one, other):
    """A rank is how many values are smaller, plus half of those that are equal."""

    def ranks(maps):
        flat = _flat(maps)
        return np.sign(flat[:, :, None] - flat[:, None, :]).sum(axis=2)

    one, other = ranks(one), ranks(other)
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def _agreement_by_corrcoef(one, other):
    with np.errstate(invalid="ignore"):
        return np.array(
            [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(one, other, strict=True)]
        )


agreement = Exercise(
    key="5.7",
    title="do two maps order the pixels alike?",
    reference=vgg_steps.rank_agreement,
    cases=_rank_cases,
    mistakes=(
        Mistake(
            _agreement(ranks=_flat),
            "You correlate the values themselves (Pearson): a few strong pixels then decide. Replace the values by their ranks "
            "first.",
            "peer",
        ),
        Mistake(
            _agreement(before=np.abs),
            "You take absolute values first: here a negative pixel ranks below a positive one.",
            "peer",
        ),
        Mistake(
            _agreement(before=lambda maps: np.maximum(maps, 0)),
            "You drop negative values first, and with them most of the order: rank the maps with their signs.",
            "trial",
        ),
        Mistake(
            _agreement(ranks=_by_position),
            "Sorting twice breaks ties by position, so that a blank map gets an order, from its first pixel to its last: equal "
            "values share the mean of their ranks, as with `scipy.stats.rankdata`.",
            "peer",
        ),
        Mistake(
            _agreement(ranks=lambda maps: _flat(maps).argsort(axis=1).astype(float)),
            "`argsort` gives the pixels in ascending order, not the rank of each pixel: use `scipy.stats.rankdata`.",
            "peer",
        ),
        Mistake(
            _agreement(ranks=lambda maps: _ranks(maps, "dense")),
            'Dense ranks (`np.unique` with `return_inverse`, or `method="dense"`) count many equal values as one: equal values '
            "share the mean of their ranks.",
            "trial",
        ),
        Mistake(
            _agreement(ranks=lambda maps: _ranks(maps, "min")),
            "Equal values get the lowest of their ranks (as with `searchsorted`): they share the mean of them.",
            "trial",
        ),
        Mistake(
            _agreement(ranks=lambda maps: _ranks(maps, "max")),
            "Equal values get the highest of their ranks: they share the mean of them.",
            "trial",
        ),
        Mistake(
            _agreement(compare=_difference_formula),
            "The formula with 6 Σd² holds only where no two values are equal, and calls a blank map's order 0.5 or so: correlate "
            "the ranks.",
            "peer",
        ),
        Mistake(
            _agreement(finish=np.nan_to_num),
            "You call the agreement with a constant map 0, which says that two orders have nothing to do with one another: it "
            "has no order, so let it be NaN. (A small number added to the divisor does the same.)",
            "peer",
        ),
        Mistake(
            _agreement(finish=lambda values: np.where(np.isnan(values), 1.0, values)),
            "You call the agreement with a constant map 1, as if the orders were the same: it has no order, so let it be NaN.",
            "trial",
        ),
        Mistake(
            _refusing,
            "You raise an error for a constant map, and the other images get no answer: put NaN in its place.",
            "trial",
        ),
        Mistake(
            _leaving_out,
            "You leave constant maps out, and nobody knows which number belongs to which image: put NaN in their place.",
            "trial",
        ),
        Mistake(
            _agreement(
                finish=lambda values: np.full(
                    len(values), np.nanmean(values) if (~np.isnan(values)).any() else np.nan
                )
            ),
            "You average over the images: each has its own number.",
            "trial",
        ),
        Mistake(
            _over_the_batch,
            "You rank the pixels of all images together and get one number: each image has its own order.",
            "trial",
        ),
        Mistake(
            _ranked_over_the_batch,
            "You rank the pixels of all images together (`rankdata` without `axis`): flatten each map, and give `axis=1`.",
            "trial",
        ),
        Mistake(
            lambda one, other: spearmanr(one.ravel(), other.ravel()).statistic,
            "You get one number for the whole batch: each image has its own order, so its own number.",
            "trial",
        ),
        Mistake(
            lambda one, other: np.array([spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]),
            "`spearmanr` takes the columns of a map for separate variables: flatten each map first, with `.ravel()`.",
            "trial",
        ),
        Mistake(
            _agreement(compare=_standardised_over_the_batch),
            "You subtract the mean of the whole batch and divide by its deviation: each row has its own, `axis=1`.",
            "trial",
        ),
        Mistake(
            _row_by_row,
            "You rank every row of a map for itself: flatten each map first.",
            "trial",
        ),
        Mistake(
            _per_image(lambda a, b: kendalltau(a, b).statistic),
            "That is Kendall's tau, which counts pairs: Spearman's correlation is that of the ranks.",
            "trial",
        ),
        Mistake(
            _per_image(lambda a, b: spearmanr(a, b).pvalue),
            "You return the p-value: the correlation comes first.",
            "trial",
        ),
        Mistake(
            _agreement(finish=np.abs),
            "You drop the sign: maps in opposite order have -1.",
            "trial",
        ),
        Mistake(
            _agreement(finish=lambda values: values**2),
            "You square the correlation: return it with its sign.",
            "trial",
        ),
        Mistake(
            _agreement(finish=lambda values: -values),
            "The sign is wrong: one of the two maps is ranked from the top, the other from the bottom.",
            "trial",
        ),
        Mistake(
            _agreement(finish=lambda values: (values + 1) / 2),
            "You move the correlation to [0, 1]: it runs from -1 to 1.",
            "trial",
        ),
        Mistake(
            _agreement(finish=lambda values: 1 - values),
            "That is a distance, 0 for the same order: return the correlation.",
            "trial",
        ),
        Mistake(
            _agreement(compare=_cosine),
            "You leave the mean in the ranks, so that everything seems to agree: subtract it, from both, before multiplying.",
            "trial",
        ),
        Mistake(
            _agreement(compare=_covariance),
            "That is the covariance of the ranks: divide it by both standard deviations.",
            "trial",
        ),
    ),
    verified="Each image's own rank correlation, ties shared, and NaN where a map has no order.",
    hints=(
        "Spearman's correlation is the ordinary correlation of ranks. `scipy.stats.rankdata` gives ranks, and equal values share "
        "theirs. Then subtract the mean, multiply, add up, and divide by both lengths.",
        "`rankdata(maps.reshape(len(maps), -1), axis=1)` for both; subtract each row's mean; the sum of products, divided by "
        "`np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))`, with `np.divide(..., out=np.full(len(one), np.nan), "
        "where=spread > 0)`.",
    ),
    alternatives=(
        _per_image(lambda a, b: spearmanr(a, b).statistic),
        _agreement_by_comparing,
        _agreement_by_corrcoef,
    ),
    rtol64=1e-6,  # so that a divisor with 1e-8 added is recognised by what it makes of constant maps
)

EXERCISES = (photos, in_place, channels, signed, three, guided, agreement)
