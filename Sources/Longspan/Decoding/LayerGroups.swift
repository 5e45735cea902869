/// A model's layers in three consecutive groups, which read different tokens at different times.
public struct LayerGroups: Sendable, Equatable {
  /// Run on every token, as it comes. Empty in models that add the embedding itself at the late layers' input.
  public let early: Range<Int>
  /// Run on the tokens of a whole cycle at once. Empty where every token passes all layers.
  public let thinking: Range<Int>
  /// Run on every token, as it comes. Never empty.
  public let late: Range<Int>
}
