/// Short prompts of several kinds, in which drafts fare differently.
enum DraftingPrompts {
  /// The user's turn of a chat.
  static let questions = [
    "What is the capital of France?",
    "Why is the sky blue?",
    "Name three primary colors.",
    "How many legs does a spider have?",
    "Write a haiku about rain.",
    "Explain gravity to a child in one sentence.",
    "Translate 'good morning' to Spanish.",
    "What is 17 plus 25?",
    "Who wrote Romeo and Juliet?",
    "Give me a recipe for pancakes.",
    "Repeat this sentence twice: The quick brown fox jumps over the lazy dog.",
    "List the days of the week.",
    "Spell the word 'necessary' letter by letter.",
    "Summarize: The meeting was moved from Monday to Tuesday because the room was taken on Monday.",
    "Correct the grammar: He go to school every days.",
    "What is the difference between a lake and a sea?",
    "Count from one to twenty.",
    "Tell me a joke.",
  ]

  /// Texts to go on with: code.
  static let code = [
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "for i in range(10):\n    print(i)\nfor j in range(20):\n    print(",
    "int add(int a, int b) { return a + b; }\nint subtract(int a, int b) { return",
    "struct Point {\n  var x: Int\n  var y: Int\n}\n\nstruct Size {\n  var width: Int\n",
    "SELECT name, age FROM users WHERE age > 18;\nSELECT name, age FROM users WHERE",
    "<ul>\n  <li>One</li>\n  <li>Two</li>\n  <li>Three</li>\n",
    "{\"id\": 1, \"name\": \"Ada\"},\n{\"id\": 2, \"name\": \"Alan\"},\n{\"id\": 3,",
    "import numpy as np\nimport pandas as pd\nimport",
    "#include <stdio.h>\n\nint main(void) {\n  printf(\"Hello\\n\");\n",
    "x = 1\ny = 2\nz = 3\nprint(x)\nprint(y)\n",
  ]

  /// Lists and rhymes, which repeat themselves.
  static let lists = [
    "1, 2, 3, 4, 5, 6, 7, 8,",
    "a b c a b c a b c a b c a b",
    "Monday: open. Tuesday: open. Wednesday: open. Thursday: open. Friday:",
    "The cat sat on the mat. The dog sat on the mat. The cow sat on the mat. The pig",
    "apple = red\nbanana = yellow\napple = red\nbanana = yellow\napple =",
    "yes yes yes yes yes yes yes yes",
    "Row, row, row your boat, gently down the stream. Row, row, row your boat,",
    "2 x 1 = 2\n2 x 2 = 4\n2 x 3 = 6\n2 x 4 = 8\n",
    "January has 31 days. March has 31 days. May has 31 days. July has",
    "- [ ] milk\n- [ ] eggs\n- [ ] bread\n- [ ] milk\n- [ ] eggs\n-",
    "0101010101010101",
    "first, second, third; first, second, third; first,",
  ]

  /// Prose.
  static let prose = [
    "It is a truth universally acknowledged, that a single man",
    "Once upon a time there was a little girl who lived",
    "The weather report for tomorrow says that",
    "Photosynthesis is the process by which plants",
    "In 1969, the first people landed on the Moon. They",
    "The main advantage of a small language model is",
    "My grandmother used to say that patience",
    "Water boils at 100 degrees Celsius and freezes at",
    "The history of the bicycle begins",
    "She opened the letter and read:",
  ]
}
