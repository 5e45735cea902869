import LongspanKernels

extension BPETokenizer {
  /// The bytes that a sequence of tokens stands for. They need not be UTF-8: a token may end inside a character.
  ///
  /// - Parameters:
  ///   - tokens: The ids.
  ///   - skippingControlTokens: Whether control tokens, such as "<|im_end|>", are left out instead of spelled.
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` if an id is not in the vocabulary.
  public func decodeBytes(
    _ tokens: [Int32], skippingControlTokens: Bool = false
  ) throws(LongspanError) -> [UInt8] {
    var result: [UInt8] = []
    for token in tokens {
      result.append(contentsOf: try bytes(of: token, skippingControlTokens: skippingControlTokens))
    }
    return result
  }

  /// The text that a sequence of tokens stands for, with U+FFFD for each maximal part that is not UTF-8.
  ///
  /// - Parameters:
  ///   - tokens: The ids.
  ///   - skippingControlTokens: Whether control tokens, such as "<|im_end|>", are left out instead of spelled.
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` if an id is not in the vocabulary.
  public func decode(_ tokens: [Int32], skippingControlTokens: Bool = false) throws(LongspanError) -> String {
    String(decoding: try decodeBytes(tokens, skippingControlTokens: skippingControlTokens), as: UTF8.self)
  }

  func bytes(of token: Int32, skippingControlTokens: Bool) throws(LongspanError) -> ArraySlice<UInt8> {
    guard let bytes = vocabulary.bytes(of: token) else {
      throw LongspanError(
        .invalidArgument, "token \(token) is not in the vocabulary of \(vocabulary.count) tokens")
    }
    return skippingControlTokens && vocabulary.isControl(token) ? [] : bytes
  }
}
