import LongspanKernels

/// The shape of a state-space model as time step policies see it.
public struct StateSpaceShape: Sendable, Equatable {
  /// State-space layers, counted on their own where a model has others as well.
  public var layers: Int
  /// Time steps of a token in each: channels E of Mamba, heads H of Mamba-2.
  public var channels: Int

  /// A shape of these numbers.
  public init(layers: Int, channels: Int) {
    self.layers = layers
    self.channels = channels
  }
}

/// Tokens that a model reads at once, and what is known of the text they are part of.
public struct ReadingStep: Sendable, Equatable {
  /// Tokens read before.
  public var position: Int
  /// Tokens of this step.
  public var count: Int
  /// Tokens of the prompt that this step is part of, or `nil` where that is not known: a text that streams in.
  public var promptLength: Int?
  /// Whether the step is part of a prompt, rather than a generated token or a continuation that is scored.
  public var isPrompt: Bool

  /// A step of `count` tokens from `position` on.
  public init(position: Int, count: Int, promptLength: Int? = nil, isPrompt: Bool = true) {
    self.position = position
    self.count = count
    self.promptLength = promptLength
    self.isPrompt = isPrompt
  }

  /// The length of the text as far as it is known: the prompt's, or what has been read with this step.
  public var textLength: Int { max(promptLength ?? 0, position + count) }
}

/// Decides what happens to the time steps of a state-space model, and which tokens its deeper layers see.
///
/// A policy is a value with the state of one sequence. The model asks it before each step.
public protocol TimeStepPolicy: Sendable, CustomStringConvertible {
  /// Throws unless it can run on models of this shape.
  func check(_ shape: StateSpaceShape) throws(LongspanError)

  /// The filter of each layer for a step: one a layer, `nil` where steps stay as they are, or empty where all do.
  mutating func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?]

  /// Rows of a step that go on into a layer and all after it, ascending, the last one among them; `nil` for all.
  ///
  /// The model calls this for a layer in ``decimatedLayers`` when it has that layer's time steps; dropped rows leave the
  /// residual stream after it.
  ///
  /// - Parameter steps: `[rows, channels]`, after softplus.
  func rowsToKeep(layer: Int, steps: Span<Float>, rows: Int, step: ReadingStep) -> [Int]?

  /// Layers for which ``rowsToKeep(layer:steps:rows:step:)`` is to be asked.
  var decimatedLayers: Set<Int> { get }
}

extension TimeStepPolicy {
  /// `nil`: every token.
  public func rowsToKeep(layer: Int, steps: Span<Float>, rows: Int, step: ReadingStep) -> [Int]? { nil }
  /// None.
  public var decimatedLayers: Set<Int> { [] }
}

/// Leaves every time step as the model makes it.
public struct UnfilteredTimeSteps: TimeStepPolicy {
  /// The policy; it has no options.
  public init() {}

  public var description: String { "none" }
  public func check(_ shape: StateSpaceShape) throws(LongspanError) {}
  public func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] { [] }
}
