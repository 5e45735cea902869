import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

@Suite struct PasskeyTests {
  private static let tinyPath = TestFiles.fixture("tiny/tied.gguf").path

  private static func tokenizer(_ path: String = tinyPath) throws -> BPETokenizer {
    try BPETokenizer(GGUFFile(path: path))
  }

  private static func occurrences(of part: [Int32], in tokens: [Int32]) -> [Int] {
    guard tokens.count >= part.count else { return [] }
    return (0...tokens.count - part.count).filter { Array(tokens[$0..<$0 + part.count]) == part }
  }

  private static func code(_ body: () throws(LongspanError) -> Void) -> LongspanError.Code? {
    do throws(LongspanError) {
      try body()
      return nil
    } catch {
      return error.code
    }
  }

  /// Length, depth, number of needles, whole sentences and spelling of one prompt.
  private static func check(
    _ task: PasskeyTask, _ tokenizer: BPETokenizer, length: Int, depth: Double, isCut: Bool = false
  ) throws {
    let key = PasskeyTask.key(seed: 7, length: length, depth: depth, sample: 0)
    let prompt = try task.prompt(length: length, depth: depth, key: key)
    #expect(prompt.tokens.count == length)
    let needle = try tokenizer.decode(Array(prompt.tokens[prompt.needle]))
    #expect(needle == " The pass key is \(key). Remember it. \(key) is the pass key.")
    #expect(
      occurrences(of: Array(prompt.tokens[prompt.needle]), in: prompt.tokens) == [prompt.needle.lowerBound])
    #expect(prompt.text.ranges(of: key).count == 2)
    #expect(prompt.text.hasSuffix("The pass key is"))
    // the nearest end of a sentence is at most half a sentence away
    let sentences = PasskeyFiller(tokenizer).sentences
    let longest = sentences.map(\.count).max() ?? 0
    let filler = prompt.filler.count - prompt.needle.count
    #expect(abs(prompt.depth - depth) * Double(filler) <= Double(longest) / 2, "\(prompt.depth) for \(depth)")
    if depth == 0 { #expect(prompt.needle.lowerBound == prompt.filler.lowerBound) }
    if depth == 1 { #expect(prompt.needle.upperBound == prompt.filler.upperBound) }
    if !isCut {
      let before = prompt.tokens[prompt.filler.lowerBound..<prompt.needle.lowerBound]
      let after = prompt.tokens[prompt.needle.upperBound..<prompt.filler.upperBound]
      let text = try tokenizer.decode(Array(before + after))
      #expect(text.hasSuffix("."))
      for sentence in text.split(separator: ".") {
        #expect(
          [
            " The grass is green", " The sky is blue", " The sun is yellow", " Here we go",
            " There and back again",
          ].contains(String(sentence)))
      }
    }
  }

  @Test func promptsHaveTheirLengthAndDepth() throws {
    let tokenizer = try Self.tokenizer()
    let task = PasskeyTask(tokenizer: tokenizer)
    let shortest = task.shortestLength(key: "12345")
    for depth in PasskeyTask.depths(10) {
      for length in [shortest, 1024, 2000, 2048, 4096, 10_007] {
        try Self.check(task, tokenizer, length: length, depth: depth)
      }
    }
    // every length from the shortest on, also where sentences must be cut
    for length in shortest..<shortest + 300 {
      try Self.check(task, tokenizer, length: length, depth: 0.4, isCut: true)
    }
  }

  /// Parts that are encoded for themselves give the tokens of the whole text.
  @Test(arguments: [false, true])
  func promptsAreTheTokensOfTheirText(isChat: Bool) throws {
    let file = try GGUFFile(path: Self.tinyPath)
    let tokenizer = try BPETokenizer(file)
    let task = PasskeyTask(tokenizer: tokenizer, chat: isChat ? try ChatTemplate(file) : nil)
    let prompt = try task.prompt(length: 2048, depth: 0.3, key: "90210")
    #expect(prompt.tokens.count == 2048)
    #expect(tokenizer.encode(prompt.text, parsingSpecialTokens: true) == prompt.tokens)
    #expect(prompt.text.contains("<|im_start|>user\nThere is an important") == isChat)
    #expect(prompt.text.contains("What is the pass key?<|im_end|>") == isChat)
    #expect(prompt.text.hasSuffix("<|im_start|>assistant\nThe pass key is") == isChat)
  }

  @Test(
    .enabled(if: TestFiles.runsModelTests, Comment(rawValue: TestFiles.modelTestsComment)),
    arguments: [false, true])
  func promptsOfSmolLM2(isChat: Bool) throws {
    let file = try GGUFFile(path: TestFiles.modelPath)
    let tokenizer = try BPETokenizer(file)
    let task = PasskeyTask(tokenizer: tokenizer, chat: isChat ? try ChatTemplate(file) : nil)
    let shortest = task.shortestLength(key: "12345")
    for length in [2048, 4096, 8192] + Array(shortest + 24..<shortest + 80) {
      for depth in PasskeyTask.depths(4) {
        // sentences of 4 and 5 tokens meet every count from 12 on
        try Self.check(task, tokenizer, length: length, depth: depth)
        let prompt = try task.prompt(length: length, depth: depth, key: "31415")
        #expect(tokenizer.encode(prompt.text, parsingSpecialTokens: true) == prompt.tokens)
        #expect(prompt.text.contains("<|im_start|>user\nThere is an important") == isChat)
        #expect(prompt.text.hasSuffix("<|im_start|>assistant\nThe pass key is") == isChat)
      }
    }
  }

  @Test func keysDependOnTheirArgumentsAlone() {
    var keys: Set<String> = []
    for seed in UInt64(0)..<4 {
      for length in [2048, 4096] {
        for depth in PasskeyTask.depths(10) {
          for sample in 0..<3 {
            let key = PasskeyTask.key(seed: seed, length: length, depth: depth, sample: sample)
            #expect(key == PasskeyTask.key(seed: seed, length: length, depth: depth, sample: sample))
            #expect(key.count == 5 && key.allSatisfy(\.isWholeNumber) && key.first != "0")
            keys.insert(key)
          }
        }
      }
    }
    // 240 draws of 90,000
    #expect(keys.count > 230)
    #expect(PasskeyTask.depths(1) == [0.5] && PasskeyTask.depths(3) == [0, 0.5, 1])
    #expect(PasskeyTask.depths(0).isEmpty)
  }

  @Test func digitsAreScoredFromTheFirstOn() {
    func score(_ text: String) -> (String, Double, Bool) {
      let answer = PasskeyAnswer(text, key: "12345")
      return (answer.digits, answer.partial, answer.isExact)
    }
    #expect(score(" 12345.") == ("12345", 1, true))
    #expect(score("12345678") == ("12345", 1, true))
    #expect(score(" the number 12399 12345") == ("12399", 0.6, false))
    #expect(score(" 12 345") == ("12", 0.4, false))
    #expect(score(" 02345") == ("02345", 0, false))
    #expect(score(" I forgot") == ("", 0, false))
    #expect(score("") == ("", 0, false))
    // other scripts' digits are no key
    #expect(score(" ١٢٣٤٥") == ("", 0, false))
    for (text, isComplete) in [
      ("", false), (" ", false), (" 1234", false), (" 1234.", true), (" 12345", true), (" 1é", true),
    ] {
      #expect(PasskeyAnswer.isComplete(text) == isComplete, "'\(text)'")
    }
  }

  @Test func whatIsNoPromptIsRefused() throws {
    let task = PasskeyTask(tokenizer: try Self.tokenizer())
    let shortest = task.shortestLength(key: "12345")
    func code(_ length: Int, _ depth: Double, _ key: String) -> LongspanError.Code? {
      Self.code { () throws(LongspanError) in _ = try task.prompt(length: length, depth: depth, key: key) }
    }
    #expect(code(shortest, 0, "12345") == nil)
    for (length, depth, key) in [
      (shortest - 1, 0, "12345"), (0, 0, "12345"), (.min, 0, "12345"), (shortest, -0.1, "12345"),
      (shortest, 1.1, "12345"), (shortest, .nan, "12345"), (shortest, 0, "1234"), (shortest, 0, "1234x"),
    ] {
      #expect(code(length, depth, key) == .invalidArgument, "\(length) \(depth) \(key)")
    }
  }

  /// A model with random weights finds nothing, but every trial is made and told.
  @Test func aModelIsAskedAtEveryLengthAndDepth() throws {
    let model = try LlamaModel(path: Self.tinyPath, context: KernelContext(threads: 2))
    let shortest = PasskeyTask(tokenizer: model.tokenizer).shortestLength(key: "12345")
    let lengths = [shortest, shortest + 50]
    var evaluation = PasskeyEvaluation(
      lengths: lengths, depths: [0, 1], samples: 2, seed: 5, chunk: 64, answerTokens: 6)
    var updates: [ProgressUpdate] = []
    let report = try evaluation.run(model) { update in
      updates.append(update)
      return true
    }
    #expect(report.trials.count == 8)
    #expect(report.trials.map(\.length) == lengths.flatMap { Array(repeating: $0, count: 4) })
    #expect(report.trials.map(\.depth) == [0, 0, 1, 1, 0, 0, 1, 1])
    #expect(report.trials.map(\.sample) == [0, 1, 0, 1, 0, 1, 0, 1])
    for trial in report.trials {
      #expect(trial.policy == "dense" && trial.cacheSlots == trial.length)
      // 2 layers, keys and values, 1 head of 24, 4 bytes
      #expect(trial.cacheBytes == trial.length * 2 * 2 * 24 * 4)
      #expect(trial.readSeconds > 0 && trial.answerTokens <= 6)
      #expect(
        trial.key
          == PasskeyTask.key(seed: 5, length: trial.length, depth: trial.depth, sample: trial.sample))
    }
    let total = 4 * (2 * shortest + 50)
    #expect(updates.allSatisfy { $0.total == total } && updates.last?.completed == total)
    #expect(updates.map(\.completed) == updates.map(\.completed).sorted())

    let whole = report.summary()
    #expect(whole.trials == 8 && whole.exact <= whole.partial && whole.seconds > 0)
    #expect(report.summary(policy: "dense", length: shortest).cacheSlots == shortest)
    #expect(report.summary(policy: "dense", length: shortest, depth: 1).trials == 2)
    #expect(report.summary(policy: "other").trials == 0)

    let again = try evaluation.run(model)
    #expect(again.trials.map(\.answer) == report.trials.map(\.answer))
    evaluation.seed = 6
    #expect(try evaluation.run(model).trials.map(\.key) != report.trials.map(\.key))
  }

  @Test func anEvaluationThatCannotRunIsRefused() throws {
    let model = try LlamaModel(path: Self.tinyPath, context: KernelContext(threads: 1))
    let length = PasskeyTask(tokenizer: model.tokenizer).shortestLength(key: "12345")
    func code(
      _ change: (inout PasskeyEvaluation) -> Void, policies: [any KVCachePolicy] = [DensePolicy()],
      progress: ProgressHandler? = nil
    ) -> LongspanError.Code? {
      var evaluation = PasskeyEvaluation(lengths: [length], depths: [0.5], answerTokens: 1)
      change(&evaluation)
      return Self.code { () throws(LongspanError) in
        _ = try evaluation.run(model, policies: policies, progress: progress)
      }
    }
    #expect(code { _ in } == nil)
    #expect(code { $0.lengths = [] } == .invalidArgument)
    #expect(code { $0.lengths = [length, length] } == .invalidArgument)
    #expect(code { $0.lengths = [length - 1] } == .invalidArgument)
    #expect(code { $0.lengths = [.max] } == .invalidArgument)
    #expect(code { $0.depths = [] } == .invalidArgument)
    #expect(code { $0.depths = [2] } == .invalidArgument)
    #expect(code { $0.depths = [0.5, 0.5] } == .invalidArgument)
    #expect(code { $0.samples = 0 } == .invalidArgument)
    #expect(code { $0.samples = .max } == .invalidArgument)
    #expect(code { $0.chunk = 0 } == .invalidArgument)
    #expect(code { $0.answerTokens = 0 } == .invalidArgument)
    // the turns of a chat take more tokens
    #expect(code { $0.usesChat = true } == .invalidArgument)
    #expect(code({ _ in }, policies: []) == .invalidArgument)
    #expect(code({ _ in }, policies: [DensePolicy(), DensePolicy()]) == .invalidArgument)
    #expect(code({ _ in }, progress: { _ in false }) == .cancelled)
  }
}
