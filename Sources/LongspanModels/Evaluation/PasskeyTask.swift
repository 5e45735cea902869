import Longspan
import LongspanKernels

/// A text that hides a key and asks for it at its end.
public struct PasskeyPrompt: Sendable, Equatable {
  /// The whole prompt, of exactly the length that was asked for.
  public let tokens: [Int32]
  /// What they spell; the beginning-of-text token, where there is one, is left out.
  public let text: String
  /// The five digits.
  public let key: String
  /// Tokens of the sentences that tell the key.
  public let needle: Range<Int>
  /// Tokens of filler, before and after the needle together.
  public let filler: Range<Int>

  /// Where the needle stands in the filler: 0 before it, 1 after it.
  public var depth: Double {
    let tokens = filler.count - needle.count
    return tokens > 0 ? Double(needle.lowerBound - filler.lowerBound) / Double(tokens) : 0
  }
}

/// Passkey retrieval: a five-digit key is told once in a long filler text and asked for at its end (Mohtashami and Jaggi
/// 2023, "Landmark Attention: Random-Access Infinite Context Length for Transformers", arXiv 2305.16300).
///
/// A prompt is the instruction, filler, the needle ("The pass key is 12345. Remember it. 12345 is the pass key."), filler and
/// the question, whose last words "The pass key is" the key completes. The filler repeats five sentences; towards its end some
/// are left out so that whole sentences meet the length. Where none do, the last one is cut.
///
/// ```swift
/// let task = PasskeyTask(tokenizer: model.tokenizer)
/// let prompt = try task.prompt(length: 2048, depth: 0.5, key: "31415")
/// ```
public struct PasskeyTask: Sendable {
  /// Digits of a key.
  public static let digits = 5

  private static let instruction =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    + "I will quiz you about the important information there."
  private static let question = " What is the pass key?"
  private static let answerStart = "The pass key is"

  private let tokenizer: BPETokenizer
  private let head: [Int32]
  private let filler: PasskeyFiller
  private let tail: [Int32]

  /// - Parameters:
  ///   - tokenizer: the model's.
  ///   - chat: wraps the text up to the question as the user's turn, with the default system message, if any, before it; the
  ///     words that the key completes begin the assistant's turn. `nil` for a plain text, which begins with the model's
  ///     beginning-of-text token where it wants one.
  public init(tokenizer: BPETokenizer, chat: ChatTemplate? = nil) {
    self.tokenizer = tokenizer
    // each part is encoded for itself: joints are at blanks before words, where pre-tokenizers split anyway
    filler = PasskeyFiller(tokenizer)
    guard let chat else {
      let beginning = tokenizer.addsBeginningOfText ? tokenizer.beginningOfText : nil
      head = (beginning.map { [$0] } ?? []) + tokenizer.encode(Self.instruction)
      tail = tokenizer.encode(Self.question + " " + Self.answerStart)
      return
    }
    // the turns around a user's message that is only a joint, which no template has in itself
    let joint = "\u{1}"
    let parts = chat.render([ChatMessage(role: "user", content: joint)]).split(
      separator: joint, maxSplits: 1, omittingEmptySubsequences: false)
    let before = parts.first.map(String.init) ?? ""
    let after = parts.dropFirst().first.map(String.init) ?? ""
    head = tokenizer.encode(before, parsingSpecialTokens: true) + tokenizer.encode(Self.instruction)
    tail =
      tokenizer.encode(Self.question)
      + tokenizer.encode(after, parsingSpecialTokens: true) + tokenizer.encode(Self.answerStart)
  }

  /// A key of five digits, the first of which is not 0. It depends on the arguments alone.
  public static func key(seed: UInt64, length: Int, depth: Double, sample: Int) -> String {
    var generator = Xoshiro256StarStar(seed: seed)
    for part in [UInt64(bitPattern: Int64(length)), depth.bitPattern, UInt64(bitPattern: Int64(sample))] {
      generator = Xoshiro256StarStar(seed: generator.next() ^ part)
    }
    return String(10_000 + Int(generator.nextUnit() * 90_000))
  }

  /// `count` depths from 0 to 1 at equal distances; 0.5 for one.
  public static func depths(_ count: Int) -> [Double] {
    count == 1 ? [0.5] : (0..<max(0, count)).map { Double($0) / Double(count - 1) }
  }

  private static func needle(_ key: String) -> String {
    " The pass key is \(key). Remember it. \(key) is the pass key."
  }

  /// The fewest tokens of a prompt with this key: all parts and the five sentences of filler once.
  public func shortestLength(key: String) -> Int {
    head.count + tokenizer.encode(Self.needle(key)).count + tail.count + filler.round
  }

  /// Makes a prompt.
  ///
  /// - Parameters:
  ///   - length: tokens of the prompt, with everything in it.
  ///   - depth: where the needle stands in the filler, 0 (before it) to 1 (after it); it is put at the nearest end of a
  ///     sentence.
  ///   - key: five digits.
  /// - Throws: ``/LongspanKernels/LongspanError`` if the length is below ``shortestLength(key:)``, the depth is outside
  ///   0 to 1, or the key is not five digits.
  public func prompt(length: Int, depth: Double, key: String) throws(LongspanError) -> PasskeyPrompt {
    guard key.utf8.count == Self.digits, key.utf8.allSatisfy({ PasskeyAnswer.isDigit($0) }) else {
      throw LongspanError(.invalidArgument, "passkey: '\(key)' is not a key of \(Self.digits) digits")
    }
    guard depth >= 0, depth <= 1 else {
      throw LongspanError(.invalidArgument, "passkey: depth \(depth) is outside 0 to 1")
    }
    try requireLength(length, key: key)
    let needle = tokenizer.encode(Self.needle(key))
    let filler = filler.sentences(tokens: length - head.count - needle.count - tail.count)
    let total = filler.reduce(0) { $0 + $1.count }
    let (before, place) = Self.split(filler, at: depth * Double(total))

    var tokens = head
    tokens.reserveCapacity(length)
    for sentence in filler[..<before] { tokens += sentence }
    tokens += needle
    for sentence in filler[before...] { tokens += sentence }
    tokens += tail
    let first = head.count
    let isMarked = tokenizer.addsBeginningOfText && tokens.first == tokenizer.beginningOfText
    return PasskeyPrompt(
      tokens: tokens, text: try tokenizer.decode(Array(tokens.dropFirst(isMarked ? 1 : 0))), key: key,
      needle: first + place..<first + place + needle.count, filler: first..<first + total + needle.count)
  }

  /// Throws if a prompt of this length would have no room for its parts.
  func requireLength(_ length: Int, key: String) throws(LongspanError) {
    guard filler.isSpelled, !tail.isEmpty else {
      throw LongspanError(.unsupported, "passkey: the model's tokenizer has no tokens for the prompt's words")
    }
    let shortest = shortestLength(key: key)
    guard length >= shortest else {
      throw LongspanError(
        .invalidArgument,
        "passkey: a length of \(length) tokens is too short, its parts and five sentences of filler take \(shortest)"
      )
    }
  }

  /// How many sentences end closest to `target` tokens, and how many tokens they have.
  private static func split(_ filler: [[Int32]], at target: Double) -> (sentences: Int, tokens: Int) {
    var place = (sentences: 0, tokens: 0)
    for sentence in filler {
      let next = place.tokens + sentence.count
      guard Double(next) - target <= target - Double(place.tokens) else { break }
      place = (place.sentences + 1, next)
    }
    return place
  }
}
