"""RKD, CRD and MCA written out sample by sample; complex features give exact derivatives."""

import numpy as np

FLOOR = 1e-12  # of a squared distance


def dot(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True))


def unit(vector):
    length = np.sqrt(dot(vector, vector))
    return [a / length for a in vector]


def smooth_l1(change):
    size = change if change.real > 0 else -change
    return change * change / 2 if size.real < 1 else size - 0.5


# --- RKD ---------------------------------------------------------------------------------------------------------


def rkd_cosine(teacher, student):
    count, total = len(teacher), 0.0
    for i in range(count):
        for j in range(count):
            if i != j:
                d = 1 - dot(unit(teacher[i]), unit(teacher[j]))
                d_prime = 1 - dot(unit(student[i]), unit(student[j]))
                total = total + smooth_l1(d_prime - d)
    return total / (count * (count - 1))


def shares(features):
    """Distances divided by their mean over pairs of two samples."""
    count = len(features)
    distances, total = [[0.0] * count for _ in range(count)], 0.0
    for i in range(count):
        for j in range(count):
            if i != j:
                difference = [a - b for a, b in zip(features[i], features[j], strict=True)]
                squared = dot(difference, difference)
                distances[i][j] = np.sqrt(squared if squared.real > FLOOR else FLOOR)
                total = total + distances[i][j]
    mean = total / (count * (count - 1))
    return [[value / mean for value in row] for row in distances]


def rkd_distance(teacher, student):
    t, s, count = shares(teacher), shares(student), len(teacher)
    return sum(smooth_l1(s[i][j] - t[i][j]) for i in range(count) for j in range(count)) / count**2


def cosine_at(vertex, first, second):
    """Cosine of the angle at `vertex` between two points; 0 if one of them lies on it."""
    arms = [[a - b for a, b in zip(point, vertex, strict=True)] for point in (first, second)]
    if any(dot(arm, arm).real <= FLOOR for arm in arms):
        return 0.0
    return dot(unit(arms[0]), unit(arms[1]))


def rkd_angle(teacher, student):
    count, total = len(teacher), 0.0
    for i in range(count):
        for j in range(count):
            for k in range(count):
                change = cosine_at(student[i], student[j], student[k]) - cosine_at(teacher[i], teacher[j], teacher[k])
                total = total + smooth_l1(change)
    return total / count**3


# --- CRD ---------------------------------------------------------------------------------------------------------


def embed(features, weight, bias):
    rows = []
    for row in features:
        rows.append(unit([dot(weight[e], row) + bias[e] for e in range(len(bias))]))
    return rows


def crd_scores(vectors, bank, images, temperature):
    return [[np.exp(dot(g, bank[n]) / temperature) for n in row] for g, row in zip(vectors, images, strict=True)]


def crd_total(scores, count):
    """Z, of the first batch."""
    values = [value.real for row in scores for value in row]
    return count * sum(values) / len(values)


def crd_side(scores, total, count):
    """Of one side: `scores` hold the image itself first, `count` images are in the bank."""
    loss = 0.0
    for row in scores:
        noise = (len(row) - 1) / count
        odds = [value / total for value in row]
        loss = loss + np.log(odds[0] / (odds[0] + noise + 1e-7))
        for value in odds[1:]:
            loss = loss + np.log(noise / (value + noise + 1e-7))
    return -loss / len(scores)


def crd_update(bank, vectors, index, momentum):
    bank = [list(row) for row in bank]
    for vector, n in zip(vectors, index, strict=True):
        bank[n] = unit([momentum * old + (1 - momentum) * new for old, new in zip(bank[n], vector, strict=True)])
    return bank


# --- MCA ---------------------------------------------------------------------------------------------------------


def mca(adversarial, natural, labels, memory, temperature):
    """`memory` holds (unit features, label) of past natural images."""
    loss = 0.0
    for u_prime, u, y in zip(map(unit, adversarial), map(unit, natural), labels, strict=True):
        positive = np.exp(dot(u_prime, u) / temperature)
        negative = sum(np.exp(dot(u_prime, v) / temperature) for v, label in memory if label != y)
        loss = loss - np.log(positive / (positive + negative))
    return loss / len(labels)
