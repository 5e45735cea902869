import LongspanKernels

/// How the next token is drawn from a model's logits.
///
/// The filters are applied in the order top-k, top-p, min-p, and the temperature after them, as llama.cpp's
/// default chain does: which tokens are kept does not depend on the temperature. Each filter sees the
/// probabilities (at temperature 1) of the tokens that the filters before it kept, renormalized to sum to 1.
public struct SamplingOptions: Hashable, Sendable {
  /// The divisor of the logits, at least 0. At 0 the most probable token is taken, and nothing is random.
  public var temperature: Float
  /// Keep only this many of the most probable tokens; 0 keeps all (Fan et al. 2018, arXiv:1805.04833).
  public var topK: Int
  /// Keep the fewest most probable tokens whose probabilities sum to at least this, in (0, 1]; 1 keeps all
  /// (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751).
  public var topP: Float
  /// Keep only tokens at least this many times as probable as the most probable one, in [0, 1]; 0 keeps all
  /// (Nguyen et al. 2024, arXiv:2407.01082).
  public var minP: Float

  /// Options; without arguments tokens are drawn as the model gives them.
  public init(temperature: Float = 1, topK: Int = 0, topP: Float = 1, minP: Float = 0) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
  }

  /// Always the most probable token.
  public static let greedy = SamplingOptions(temperature: 0)

  /// Checks each option against its range.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` that names the option and its value.
  public func validate() throws(LongspanError) {
    guard temperature >= 0, temperature.isFinite else {
      throw Self.invalid("temperature", "\(temperature)", "a finite number of at least 0")
    }
    guard topK >= 0 else {
      throw Self.invalid("top-k", "\(topK)", "at least 0 (0 keeps all tokens)")
    }
    guard topP > 0, topP <= 1 else {
      throw Self.invalid("top-p", "\(topP)", "above 0 and at most 1")
    }
    guard minP >= 0, minP <= 1 else {
      throw Self.invalid("min-p", "\(minP)", "from 0 to 1")
    }
  }

  private static func invalid(_ name: String, _ value: String, _ range: String) -> LongspanError {
    LongspanError(.invalidArgument, "\(name) is \(value), but must be \(range)")
  }
}
