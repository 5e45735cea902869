import LongspanKernels

/// Turns tokens into text as they are generated.
///
/// A token may end inside a character. Its first bytes are then held back until the character is complete, so
/// that the pieces of text handed out, one after the other, are the text of all tokens together.
public struct TokenStreamDecoder: Sendable {
  private let tokenizer: BPETokenizer
  private let skippingControlTokens: Bool
  private var pending: [UInt8] = []

  /// - Parameters:
  ///   - tokenizer: The tokenizer that the tokens belong to.
  ///   - skippingControlTokens: Whether control tokens, such as "<|im_end|>", are left out instead of spelled.
  public init(_ tokenizer: BPETokenizer, skippingControlTokens: Bool = false) {
    self.tokenizer = tokenizer
    self.skippingControlTokens = skippingControlTokens
  }

  /// Adds a token and returns the text that is now complete, which may be empty.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` if the id is not in the vocabulary.
  public mutating func append(_ token: Int32) throws(LongspanError) -> String {
    pending.append(contentsOf: try tokenizer.bytes(of: token, skippingControlTokens: skippingControlTokens))
    let complete = pending.count - Self.incompleteSuffix(of: pending)
    defer { pending.removeFirst(complete) }
    return String(decoding: pending[..<complete], as: UTF8.self)
  }

  /// Ends the text and returns what was held back: U+FFFD for a character that was never completed.
  public mutating func finish() -> String {
    defer { pending = [] }
    return String(decoding: pending, as: UTF8.self)
  }

  /// The number of bytes from the last lead byte on, if its sequence needs more than these.
  ///
  /// A lead byte always begins a new character, so what is before it can be decoded without what follows.
  private static func incompleteSuffix(of bytes: [UInt8]) -> Int {
    for count in 1...3 where count <= bytes.count {
      let suffix = bytes.suffix(count)
      guard let lead = suffix.first else { break }
      if lead & 0xC0 == 0x80 { continue }
      return count < sequenceLength(lead) ? count : 0
    }
    return 0
  }

  private static func sequenceLength(_ lead: UInt8) -> Int {
    switch lead {
    case 0xC2...0xDF: 2
    case 0xE0...0xEF: 3
    case 0xF0...0xF4: 4
    default: 1
    }
  }
}
