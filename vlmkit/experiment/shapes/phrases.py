"""The wordings of every question kind."""

COUNT_ALL = (
    "How many objects are there?",
    "How many objects are in the image?",
    "How many shapes do you see?",
    "Count the objects.",
    "What is the number of objects?",
)
COUNT_COLOUR = (
    "How many {colour} objects are there?",
    "How many objects are {colour}?",
    "Count the {colour} objects.",
    "How many {colour} shapes do you see?",
    "What is the number of {colour} objects?",
)
COUNT_SHAPE = (
    "How many {shapes} are there?",
    "Count the {shapes}.",
    "How many {shapes} do you see?",
    "What is the number of {shapes}?",
    "How many of the objects are {shapes}?",
)
COUNT_BOTH = {
    "and": (
        "How many {colour} {shapes} are there?",
        "Count the {colour} {shapes}.",
        "How many {colour} {shapes} do you see?",
    ),
    "not": (
        "How many {colour} objects are not {shapes}?",
        "Count the {colour} objects that are not {shapes}.",
        "How many {colour} objects are there without the {shapes}?",
    ),
    "or": (
        "How many objects are {colour} or {shapes}?",
        "Count the objects that are {colour} or {shapes}.",
        "How many objects are either {colour} or {shapes}?",
    ),
}
COMPARE_COLOUR = (
    "Are there more {first} or {second} objects?",
    "Which are there more of, {first} or {second} objects?",
    "Which colour is more common, {first} or {second}?",
    "Are there more {first} objects or {second} objects?",
)
COMPARE_SHAPE = (
    "Are there more {first} or {second}?",
    "Which are there more of, {first} or {second}?",
    "Which shape is more common, {first} or {second}?",
)
COLOUR_OF = (
    "What colour is the {shape}?",
    "What color is the {shape}?",
    "Which colour does the {shape} have?",
    "What is the colour of the {shape}?",
)
SHAPE_OF = (
    "What shape is the {colour} object?",
    "Which shape is {colour}?",
    "What is the shape of the {colour} object?",
    "What is the {colour} object?",
)
EXISTS = (
    "Is there a {look}?",
    "Do you see a {look}?",
    "Is a {look} in the image?",
    "Does the image show a {look}?",
)
WHERE = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
BESIDE = (
    "What is {where} the {name}?",
    "Which object is {where} the {name}?",
    "What do you see {where} the {name}?",
    "What is directly {where} the {name}?",
)
ORDER = (
    "Is the {first} {where} the {second}?",
    "Do you see the {first} {where} the {second}?",
    "Does the image show the {first} {where} the {second}?",
)
CHAIN = (
    "What is {second} the object {first} the {name}?",
    "Which object is {second} the object {first} the {name}?",
    "What do you see {second} the object {first} the {name}?",
)
SAME_COLOUR = (
    "How many objects have the same colour as the {shape}, counting the {shape}?",
    "How many objects have the colour of the {shape}, itself included?",
    "Counting the {shape} itself, how many objects have its colour?",
)
READ = (
    "What number is shown?",
    "Read the number.",
    "Which number do you see?",
    "What is the number in the image?",
)
SUM = (
    "What is the sum of the digits?",
    "Add the digits.",
    "What do the digits add up to?",
    "Add up all digits in the image.",
)
DESCRIBE = (
    "Describe the image.",
    "What do you see?",
    "Describe this image.",
    "List the objects.",
    "What is in the image?",
)
UNANSWERABLE = (
    "Who drew the image?",
    "What is the name of the artist?",
    "How heavy is the {shape}?",
    "What time is it?",
    "What does the {shape} smell like?",
    "How old is the {colour} object?",
    "Where was the image taken?",
    "What is behind the {shape}?",
    "How much does the {shape} cost?",
    "Who owns the {colour} object?",
    "What is the {shape} thinking about?",
    "What music is playing?",
    "What is the weather like?",
    "Which day is it?",
)
