import Longspan
import LongspanKernels

/// A prompt that tells facts and asks for them after a filler text.
public struct RecallPrompt: Sendable, Equatable {
  /// Facts and filler.
  public let prompt: [Int32]
  /// The questions with their answers, without the last answer.
  public let questions: [Int32]
  /// Where the answers' logits are: numbers of question tokens that an answer follows.
  public let places: [Int]
  /// The answer at each of ``places``.
  public let answers: [Int32]
}

/// Recall of facts over a distance, in the format that the models that come with Longspan were trained on
/// (`Benchmarks/training`).
///
/// A fact is `<|fact|> K V <|end|>` and a question `<|query|> K <|is|>`, which V follows; K is one of the letters A to Z and V one
/// of a to z, each a token. All facts stand together in the filler, all questions after it, in another order, each with its
/// right answer.
public struct RecallTask: Sendable {
  /// Tokens of a fact, and of a question with its answer.
  public static let unit = 4

  private let keys: [Int32]
  private let values: [Int32]
  private let fact: Int32
  private let end: Int32
  private let query: Int32
  private let equals: Int32

  /// - Throws: ``/LongspanKernels/LongspanError`` if the tokenizer does not have the task's tokens.
  public init(_ tokenizer: BPETokenizer) throws(LongspanError) {
    func token(_ text: String) throws(LongspanError) -> Int32 {
      let tokens = tokenizer.encode(text, parsingSpecialTokens: true)
      guard tokens.count == 1 else {
        throw LongspanError(
          .unsupported, "recall: the model has no token '\(text)', so it was not trained for this task")
      }
      return tokens[0]
    }
    func letters(from first: Unicode.Scalar) throws(LongspanError) -> [Int32] {
      var tokens: [Int32] = []
      for offset in 0..<26 {
        tokens.append(try token(String(Unicode.Scalar(UInt8(first.value) + UInt8(offset)))))
      }
      return tokens
    }
    fact = try token("<|fact|>")
    end = try token("<|end|>")
    query = try token("<|query|>")
    equals = try token("<|is|>")
    keys = try letters(from: "A")
    values = try letters(from: "a")
  }

  /// A prompt of `length` tokens in all, with the filler from a random place of a text.
  ///
  /// - Parameters:
  ///   - facts: 1 to 26.
  ///   - depth: where the facts stand in the filler, from 0, before it, to 1, after it.
  /// - Throws: ``/LongspanKernels/LongspanError`` if the length leaves no room for the facts, or the text is too short.
  public func prompt(
    length: Int, facts: Int, depth: Double, text: [Int32], using generator: inout Xoshiro256StarStar
  ) throws(LongspanError) -> RecallPrompt {
    guard facts >= 1, facts <= keys.count, depth >= 0, depth <= 1 else {
      throw LongspanError(
        .invalidArgument,
        "recall: \(facts) facts at depth \(depth); 1 to \(keys.count) at 0 to 1 are possible")
    }
    let fillerCount = length - 2 * Self.unit * facts
    guard fillerCount >= 0 else {
      throw LongspanError(
        .invalidArgument, "recall: \(length) tokens have no room for \(facts) facts and their questions")
    }
    guard text.count >= fillerCount else {
      throw LongspanError(
        .invalidText, "recall: the text has \(text.count) tokens, fewer than the \(fillerCount) of filler")
    }
    let chosen = Array(keys.shuffled(using: &generator).prefix(facts))
    let told = chosen.map { _ in values[Int(generator.nextUnit() * Double(values.count))] }
    let start = Int(generator.nextUnit() * Double(text.count - fillerCount + 1))
    let filler = text[start..<start + fillerCount]
    let place = start + Int(depth * Double(fillerCount))
    let facts = zip(chosen, told).flatMap { [fact, $0, $1, end] }
    let order = chosen.indices.shuffled(using: &generator)
    let questions = order.flatMap { [query, chosen[$0], equals, told[$0]] }
    return RecallPrompt(
      prompt: filler[..<place] + facts + filler[place...], questions: questions.dropLast(),
      places: order.indices.map { $0 * Self.unit + 2 }, answers: order.map { told[$0] })
  }
}
